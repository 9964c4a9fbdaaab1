"""Who may read what: grants and membership.

A grant says that the registry has accepted a credential for a repository, not longer than `access_ttl` ago. It is
kept as an HMAC of the credential with a key of this box, in the records, so that every worker process knows it; the
credential itself is nowhere. Membership says that a digest belongs to a repository: because a manifest of it refers
to it, or because upstream has served it there. Both are needed before anything held is served.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor

ANONYMOUS: Final = "anonymous"
KEY_BYTES: Final = 32


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
class Member:
    """A digest as a repository knows it."""

    size: int  # bytes, -1 when unknown
    media_type: str
    followed: bool = False  # a manifest of which all that it refers to has been recorded too
    referrer: str = ""  # digest of a manifest of the repository that refers to it


class Access:
    """Grants and membership in the records."""

    def __init__(self, records: Records, key: bytes) -> None:
        self._records, self._key = records, key

    def principal(self, registry: str, authorization: str | None) -> str:
        """Stands for one credential of one registry; says nothing about it."""
        if not authorization:
            return ANONYMOUS
        return hmac.new(self._key, f"{registry}\0{authorization}".encode(), hashlib.sha256).hexdigest()

    def granted(self, registry: str, repository: str, principal: str) -> bool:
        return self._records.get(f"grant/{registry}/{repository}/{principal}") is not None

    async def grant(self, registry: str, repository: str, principal: str, ttl: float) -> None:
        """Remembers for `ttl` seconds that the registry has just accepted this."""
        if ttl > 0:
            await self._records.put(f"grant/{registry}/{repository}/{principal}", {}, ttl=ttl)

    def member(self, registry: str, repository: str, digest: Digest) -> Member | None:
        if (value := self._records.get(f"member/{registry}/{repository}/{digest}")) is None:
            return None
        size, media_type = value.get("size"), value.get("media_type")
        return Member(
            size if isinstance(size, int) else -1,
            media_type if isinstance(media_type, str) else "",
            value.get("followed") is True,
            referrer if isinstance(referrer := value.get("of"), str) else "",
        )

    async def add_member(self, registry: str, repository: str, descriptor: Descriptor) -> None:
        """Upstream has served, or offered, this under the repository."""
        key = _member_key(registry, repository, descriptor)
        if self._records.get(key) is None:
            await self._records.put(key, _member(descriptor))

    async def add_manifest(
        self, registry: str, repository: str, manifest: Descriptor, refers_to: Iterable[Descriptor]
    ) -> None:
        """A manifest of the repository makes all it refers to belong there as well."""
        of = str(manifest.digest)
        values = {_member_key(registry, repository, child): {**_member(child), "of": of} for child in refers_to}
        new: dict[str, Document] = {key: value for key, value in values.items() if self._records.get(key) is None}
        new[_member_key(registry, repository, manifest)] = {**_member(manifest), "followed": True}
        await self._records.put_many(new)


def _member_key(registry: str, repository: str, descriptor: Descriptor) -> str:
    return f"member/{registry}/{repository}/{descriptor.digest}"


def _member(descriptor: Descriptor) -> Document:
    return {"size": descriptor.size, "media_type": descriptor.media_type}
