"""Who has shown which password: what is kept of passwords so that they can be checked while nobody else can.

1. Kept is an argon2id hash, peppered with a key of this box, and only of a password by which the registry has admitted
   somebody to a repository that is not public. That a token service gave out a token proves nothing: some give anyone
   a token that opens nothing.
2. What an account is, is the user name *and* the password: with names such as `oauth2accesstoken` the password alone
   says who it is, and one person's access tokens differ in what they may do. A password never inherits what another
   one was admitted to.
3. A password that is new for a user puts all others of that user out of force at once, until the registry admits
   somebody by one of them again (people have several access tokens, and they have changed passwords; only the registry
   can tell). So does a refusal by the registry. What was issued before the password was put out of force brings
   nothing back.
4. Secrets that nobody can guess (identity tokens, and passwords under names that stand for nobody) need no slow hash:
   their name with a key of this box is proof enough, and any number of them are in force side by side.

The salt is made of the user's name with a key of the box instead of being drawn: then all processes make the same hash
of the same password, and one computation checks it against everything kept.
"""

import asyncio
import hmac
import logging
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm

from entrepot.cache.interface import Document, Records
from entrepot.engine.claims import Claim
from entrepot.engine.hashing import PARAMETERS, SlowHash
from entrepot.engine.keys import Keys
from entrepot.engine.policy import Policy
from entrepot.registry.catalogue import Registry

_log = logging.getLogger("entrepot.tokens")
REMEMBERED: Final = 4  # passwords of one user; the ones that were admitted longest ago go
RENEWED_AFTER: Final = 3600.0  # seconds after which another admission is worth a write
MAX_WRONG: Final = 10  # passwords for one user in `WRONG_WINDOW` seconds, then all are refused unseen
WRONG_WINDOW: Final = 60.0
SKEW: Final = 60.0  # seconds by which a note of the future is believed
BARE: Final = "bare"
_HASH: Final = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a claim: `verified` with the account, `contradicted` by what is kept, or `unknown`."""

    verdict: Literal["verified", "contradicted", "unknown"]
    account: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """A password as it was given to a token service, or to the registry, which had not refused it by then."""

    key: str  # of the record of its user
    hash: str
    issued: float  # epoch seconds

    def document(self) -> Document:
        return {"key": self.key, "hash": self.hash, "issued": self.issued}

    @classmethod
    def load(cls, value: object) -> "Proof | None":
        match value:
            case {"key": str(key), "hash": str(hash_), "issued": float() | int() as issued}:
                return cls(key, hash_, issued)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One password of one user."""

    hash: str
    at: float  # when the registry last admitted somebody by it
    since: float  # when it was last put in force, or out of it
    active: bool


class Verifiers:
    """Checks claims, and keeps what registries have shown to be right. `clock` gives epoch seconds."""

    def __init__(self, records: Records, keys: Keys, policy: Policy, clock: Callable[[], float]) -> None:
        self._records, self._keys, self._clock = records, keys, clock
        self.policy = policy
        self._slow = SlowHash(keys.verifiers, clock)
        self._wrong: dict[str, list[float]] = {}
        self._lock = asyncio.Lock()  # from reading a record to writing it

    async def standing(self, registry: Registry, claim: Claim) -> Standing:
        """What is known of the claim within `outage_grace`. Raises `Busy`."""
        key = self._key(registry, claim)
        if not self._entries(registry, key):
            return Standing("unknown")
        new = not claim.bare and not self._slow.knows(self._material(registry, claim))
        if new and self._is_guessed(key):
            return Standing("contradicted")
        hashed = await self._hash(registry, claim)
        mine = _find(self._entries(registry, key), hashed)  # as they are now
        if mine is not None and mine.active:
            return Standing("verified", self._account(key, mine.hash))
        if new:
            self._wrong.setdefault(key, []).append(self._clock())
        return Standing("contradicted")

    async def proof(self, registry: Registry, claim: Claim) -> Proof | None:
        """Of a claim that was just accepted, for `promote`. Raises `Busy`."""
        hashed = await self._hash(registry, claim)
        return Proof(self._key(registry, claim), hashed, self._clock()) if hashed else None

    def account(self, registry: Registry, proof: Proof) -> str:
        """The account that the password is verified for already; "" for none."""
        mine = _find(self._entries(registry, proof.key), proof.hash)
        return self._account(proof.key, mine.hash) if mine is not None and mine.active else ""

    async def promote(self, registry: Registry, proof: Proof) -> str:
        """By this password somebody was just admitted to what is not public: the account; "" if the proof is too old.

        Only to be called on such an occasion: it makes the password one that opens things while nobody can be asked.
        """
        async with self._lock:
            return await self._promote(registry, proof)

    async def _promote(self, registry: Registry, proof: Proof) -> str:
        now, entries = self._clock(), self._entries(registry, proof.key)
        mine = _find(entries, proof.hash)
        others = [entry for entry in entries if entry is not mine]
        if mine is not None and mine.active:
            if now - mine.at < min(RENEWED_AFTER, self.policy.outage_grace(registry) / 4):
                return self._account(proof.key, proof.hash)
            mine = replace(mine, at=now, since=max(mine.since, proof.issued))
        elif proof.issued < max((entry.since for entry in entries), default=0.0):
            return ""
        else:
            others = others if mine else [replace(entry, active=False) for entry in others]
            mine = _Entry(proof.hash, now, proof.issued, active=True)
        await self._keep(registry, proof.key, [mine, *others])
        return self._account(proof.key, proof.hash)

    async def refused(self, registry: Registry, claim: Claim) -> None:
        """The registry has just said that this user's password, or this token, is wrong. Raises `Busy`."""
        key = self._key(registry, claim)
        if not self._entries(registry, key):
            return
        hashed = await self._hash(registry, claim)
        async with self._lock:
            entries = self._entries(registry, key)
            if (mine := _find(entries, hashed)) is not None:
                out = replace(mine, active=False, since=self._clock())
                await self._keep(registry, key, [out, *(entry for entry in entries if entry is not mine)])

    def _key(self, registry: Registry, claim: Claim) -> str:
        if claim.bare:
            return f"verifier/{registry.name}/{self._keys.name('secret', claim.user, claim.secret)}"
        return f"verifier/{registry.name}/{self._keys.name('user', claim.user)}"

    def _account(self, key: str, hashed: str) -> str:
        return f"account-{self._keys.name('account', key, hashed)}"

    def _material(self, registry: Registry, claim: Claim) -> tuple[bytes, bytes]:
        return self._keys.salt(registry.name, claim.user), claim.secret.encode("utf-8", "surrogateescape")

    async def _hash(self, registry: Registry, claim: Claim) -> str:
        """ "" when this machine cannot make it."""
        if claim.bare:
            return BARE
        try:
            salt, hashed = await self._slow.hash(*self._material(registry, claim))
        except UnsupportedAlgorithm:
            _log.warning("no argon2id in this build of OpenSSL: nobody's password can be checked in an outage")
            return ""
        return f"$argon2id$v=19${PARAMETERS}${_base64(salt)}${_base64(hashed)}"

    def _entries(self, registry: Registry, key: str) -> list[_Entry]:
        """What is kept and still counts, latest admission first."""
        kept = (self._records.get(key) or {}).get("entries")
        entries = [entry for value in kept if (entry := _entry(value))] if isinstance(kept, list) else []
        grace, now = self.policy.outage_grace(registry), self._clock()
        fresh = [entry for entry in entries if -SKEW <= now - entry.at < grace]
        return [entry for entry in fresh if entry.hash == BARE or f"${PARAMETERS}$" in entry.hash]

    async def _keep(self, registry: Registry, key: str, entries: list[_Entry]) -> None:
        kept = sorted(entries, key=lambda entry: (entry.active, entry.at), reverse=True)[:REMEMBERED]
        value = [{"hash": one.hash, "at": one.at, "since": one.since, "active": one.active} for one in kept]
        await self._records.put(key, {"entries": value}, ttl=self.policy.outage_grace(registry))

    def _is_guessed(self, key: str) -> bool:
        """Whether somebody tries passwords for this user."""
        since = self._clock() - WRONG_WINDOW
        if len(self._wrong) > 1000:
            self._wrong = {one: times for one, times in self._wrong.items() if times[-1] > since}
        recent = [at for at in self._wrong.get(key, ()) if at > since]
        if recent:
            self._wrong[key] = recent
        return len(recent) >= MAX_WRONG


def _find(entries: list[_Entry], hashed: str) -> _Entry | None:
    return next((entry for entry in entries if hmac.compare_digest(entry.hash, hashed)), None)


def _entry(value: object) -> _Entry | None:
    match value:
        case {
            "hash": str(hashed),
            "at": float() | int() as at,
            "since": float() | int() as since,
            "active": bool() as active,
        } if _HASH.fullmatch(hashed):
            return _Entry(hashed, at, since, active)
        case _:
            return None


def _base64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")
