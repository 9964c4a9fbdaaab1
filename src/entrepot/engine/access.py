"""Who may read what, as the records know it: public proofs, grants, membership (DESIGN rule 3).

1. A repository is public when a request that carried nobody's rights was served it; that counts `public_ttl`.
2. A grant says that the registry has accepted a credential for a repository. While the registry answers it counts
   `access_ttl`; while it does not, `outage_grace`, for the credential and for the account behind it.
3. A blob belongs to a repository when upstream has served or offered it there, or when a manifest of the repository
   refers to it and its bytes are no secret, because some public repository has them.

Kept are HMACs with a key of this box; the credentials themselves are nowhere. When to ask the registry, and what a
refusal means, is decided by `admission`.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.identity import ANONYMOUS, Identity
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor

KEY_BYTES: Final = 32
TOKEN_GRANT: Final = 3600.0  # seconds that a grant of a token is kept at most: they end sooner
SKEW: Final = 60.0  # seconds by which a note of the future is believed: clocks are set back by so much, not more


def box_key(path: Path) -> bytes:
    """The secret with which this box hashes credentials; made on first use (0600), the same for all its processes."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(os.urandom(KEY_BYTES))
    try:
        os.link(draft, path)  # atomic, and whoever comes second uses the first one's
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Publicness:
    """What the last look at a repository with nobody's rights has shown."""

    public: bool
    at: float  # epoch seconds


@dataclass(frozen=True, slots=True)
class Member:
    """A digest as a repository knows it."""

    size: int  # bytes, -1 when unknown
    media_type: str
    followed: bool = False  # a manifest of which all that it refers to has been recorded too
    referrer: str = ""  # digest of a manifest of the repository that refers to it
    served: bool = False  # upstream has served or offered it under this very repository


class Access:
    """The records. `clock` gives epoch seconds."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock

    # repositories that anyone may pull

    def publicness(self, registry: str, repository: str) -> Publicness | None:
        match self._records.get(f"public/{registry}/{repository}"):
            case {"public": bool() as public, "at": float() | int() as at}:
                return Publicness(public, at)
            case _:
                return None

    def is_public(self, registry: str, repository: str, ttl: float) -> bool:
        """Proved not longer than `ttl` seconds ago."""
        found = self.publicness(registry, repository)
        return found is not None and found.public and self.within(found.at, ttl)

    async def set_public(self, registry: str, repository: str, *, public: bool) -> None:
        value = {"public": public, "at": self._clock()}
        await self._records.put(f"public/{registry}/{repository}", value)

    # grants

    def granted(self, repository: str, identity: Identity, ttl: float) -> str:
        """Under which of its names the identity was accepted within `ttl` seconds: "credential", "account" or ""."""
        if self._accepted(identity.registry, repository, identity.credential, ttl):
            return "credential"
        account = identity.account_for(repository)
        if account and self._accepted(identity.registry, repository, account, ttl):
            return "account"
        return ""

    def _accepted(self, registry: str, repository: str, who: str, ttl: float) -> bool:
        at = (self._records.get(f"grant/{registry}/{repository}/{who}") or {}).get("at")
        return isinstance(at, float | int) and self.within(at, ttl)

    async def grant(self, repository: str, identity: Identity, *, keep: float) -> None:
        """The registry has just accepted this identity; what it says of an account is kept `keep` seconds."""
        now = self._clock()
        if not identity.own:
            ends = min(keep, TOKEN_GRANT, max(0.0, identity.until - now)) if identity.until < inf else keep
            await self._note(identity, repository, identity.credential, now, ends)
        if account := identity.account_for(repository):
            await self._note(identity, repository, account, now, keep)

    async def _note(self, identity: Identity, repository: str, who: str, now: float, ttl: float) -> None:
        if ttl > 0:
            await self._records.put(f"grant/{identity.registry}/{repository}/{who}", {"at": now}, ttl=ttl)

    async def withdraw(self, repository: str, identity: Identity) -> None:
        """The registry has just refused it."""
        for who in (identity.credential, identity.account):
            if who and who != ANONYMOUS:
                await self._records.delete(f"grant/{identity.registry}/{repository}/{who}")

    def within(self, at: float, ttl: float) -> bool:
        """Not longer than `ttl` seconds ago; a time that has not come yet says nothing (the clock was set back)."""
        return -SKEW <= self._clock() - at < ttl

    # membership

    def member(self, registry: str, repository: str, digest: Digest) -> Member | None:
        if (value := self._records.get(f"member/{registry}/{repository}/{digest}")) is None:
            return None
        size, media_type = value.get("size"), value.get("media_type")
        return Member(
            size if isinstance(size, int) else -1,
            media_type if isinstance(media_type, str) else "",
            value.get("followed") is True,
            referrer if isinstance(referrer := value.get("of"), str) else "",
            value.get("served") is True,
        )

    def belongs(self, registry: str, repository: str, digest: Digest) -> bool:
        """Whether the blob may be served under the repository to whom may read that."""
        member = self.member(registry, repository, digest)
        return member is not None and (member.served or self.is_open_secret(digest))

    def is_open_secret(self, digest: Digest) -> bool:
        """Some public repository has it: whoever names it in a manifest of his own learns nothing."""
        return self._records.get(f"open/{digest}") is not None

    async def add_member(self, registry: str, repository: str, descriptor: Descriptor, *, public: bool) -> None:
        """Upstream has served, or offered, this under the repository."""
        key = _member_key(registry, repository, descriptor)
        known = self._records.get(key)
        new: dict[str, Document] = {}
        if known is None or known.get("served") is not True:
            new[key] = {**(known or _member(descriptor)), "served": True}
        if public and not self.is_open_secret(descriptor.digest):
            new[f"open/{descriptor.digest}"] = {}
        if new:
            await self._records.put_many(new)

    async def add_manifest(
        self, registry: str, repository: str, manifest: Descriptor, refers_to: Iterable[Descriptor]
    ) -> None:
        """A manifest of the repository makes all it refers to belong there as well."""
        of = str(manifest.digest)
        values = {_member_key(registry, repository, child): {**_member(child), "of": of} for child in refers_to}
        new: dict[str, Document] = {key: value for key, value in values.items() if self._records.get(key) is None}
        new[_member_key(registry, repository, manifest)] = {**_member(manifest), "followed": True, "served": True}
        await self._records.put_many(new)


def _member_key(registry: str, repository: str, descriptor: Descriptor) -> str:
    return f"member/{registry}/{repository}/{descriptor.digest}"


def _member(descriptor: Descriptor) -> Document:
    return {"size": descriptor.size, "media_type": descriptor.media_type}
