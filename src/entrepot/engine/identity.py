"""Who a request stands for, as far as the box knows: never a credential, only what it is kept under.

What is known of a token was learnt when its service gave it out (`tokens`); what is known of a password is in the
`verifiers`. A token that has come past us another way, or that was asked for in words we do not understand, stands
for itself only.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.claims import basic_claim
from entrepot.engine.keys import Keys
from entrepot.engine.owntokens import OwnTokens, holds_own_token
from entrepot.engine.verifiers import Proof, Verifiers
from entrepot.registry.catalogue import Registry

ANONYMOUS: Final = "anonymous"
VOID: Final = "void-"
"""How the name begins of a credential that is known to be wrong. Each time another one: what is granted to it, should
the registry turn out to be there and to accept it, is granted to nobody."""
REMEMBERED_FOR: Final = 2.0  # seconds that a process does without asking the records again who a token is
MAX_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """One credential of one registry."""

    registry: str
    credential: str  # ANONYMOUS, or an HMAC of the whole credential
    account: str = ""  # HMAC of the account whose password was verified with this very credential; "" = unknown
    anonymous: bool = False  # carries nobody's rights: no credential, or a token that was issued to nobody
    own: bool = False  # a token of ours: upstream never sees it, and so answers as it would answer nobody
    offline: bool = False  # the account's password was checked by us, and not by the registry
    grace: bool = False  # one that was made while upstream was known to be away
    until: float = inf  # epoch seconds at which the credential ends, if known
    repositories: frozenset[str] | None = None  # what the account may be taken for; None for all: see `account_for`

    @property
    def is_void(self) -> bool:
        """It is known to be wrong."""
        return self.credential.startswith(VOID)

    def account_for(self, repository: str) -> str:
        """The account, if the credential was asked for this repository: a token for one opens no other."""
        return self.account if self.repositories is None or repository in self.repositories else ""


NOBODY: Final = Identity("", ANONYMOUS, anonymous=True)
"""A request whose credential has not been looked at."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What was learnt of a token when it was given out."""

    until: float  # epoch seconds
    anonymous: bool = False
    account: str = ""
    repositories: frozenset[str] = frozenset()
    proof: Proof | None = None

    @classmethod
    def load(cls, value: Document | None) -> "Issued | None":
        match value:
            case {
                "until": float() | int() as until,
                "anonymous": bool() as anonymous,
                "account": str() as account,
                "repositories": list() as repositories,
                **rest,
            }:
                names = frozenset(name for name in repositories if isinstance(name, str))
                return cls(until, anonymous, account, names, Proof.load(rest.get("proof")))
            case _:
                return None

    def document(self) -> Document:
        return {
            "until": self.until,
            "anonymous": self.anonymous,
            "account": self.account,
            "repositories": sorted(self.repositories),
            "proof": self.proof.document() if self.proof else None,
        }


class Identities:
    """Finds who requests stand for. `clock` gives epoch seconds."""

    def __init__(
        self, records: Records, keys: Keys, own: OwnTokens, verifiers: Verifiers, clock: Callable[[], float]
    ) -> None:
        self._records, self._keys, self._own, self._verifiers, self._clock = records, keys, own, verifiers, clock
        self._memo: dict[str, tuple[Identity, float]] = {}

    def identify(self, registry: str, authorization: str | None) -> Identity:
        """Of a request's `Authorization`. Microseconds; some tens of them for a token not seen lately."""
        if not authorization:
            return Identity(registry, ANONYMOUS, anonymous=True)
        credential = self._keys.credential(registry, authorization)
        known, until = self._memo.get(credential, (None, 0.0))
        now = self._clock()
        if known is not None and now < until:
            return known
        found = self._find(registry, credential, authorization)
        if len(self._memo) >= MAX_REMEMBERED:
            self._memo.clear()
        self._memo[credential] = found, min(now + REMEMBERED_FOR, found.until)
        return found

    def _find(self, registry: str, credential: str, authorization: str) -> Identity:
        token = bearer_token(authorization)
        if token is None:
            return Identity(registry, credential)
        if holds_own_token(authorization):
            ours = self._own.read(token)
            if ours is None:
                return Identity(registry, credential)
            return Identity(
                registry,
                credential,
                ours.account,
                anonymous=not ours.account,
                own=True,
                offline=bool(ours.account),
                grace=ours.grace,
                until=ours.until,
                repositories=ours.repositories,
            )
        issued = Issued.load(self._records.get(self.token_key(token)))
        if issued is None:
            return Identity(registry, credential)
        return Identity(
            registry,
            credential,
            issued.account,
            issued.anonymous,
            until=issued.until,
            repositories=issued.repositories,
        )

    async def identify_offline(self, registry: Registry, authorization: str | None) -> Identity:
        """The same while the registry cannot be asked: a password sent along is checked. Raises `Busy`."""
        identity = self.identify(registry.name, authorization)
        if (claim := basic_claim(authorization)) is None:
            return identity
        standing = await self._verifiers.standing(registry, claim)
        match standing.verdict:
            case "verified":
                return replace(identity, account=standing.account, offline=True)
            case "contradicted":
                return replace(identity, credential=VOID + os.urandom(16).hex())
            case _:
                return identity

    async def accepted(self, registry: Registry, identity: Identity, authorization: str | None) -> Identity:
        """The registry has just admitted this to a repository that is known not to be public; with the account, if any.

        That it is not public must have been shown lately, by a refusal of an anonymous request: see `verifiers`.
        Raises `Busy`.
        """
        if not authorization or identity.anonymous or identity.own or holds_own_token(authorization):
            return identity
        if (claim := basic_claim(authorization)) is not None:
            proof = await self._verifiers.proof(registry, claim)
            return replace(identity, account=await self._verifiers.promote(registry, proof) if proof else "")
        token = bearer_token(authorization)
        issued = Issued.load(self._records.get(self.token_key(token))) if token else None
        if token is None or issued is None or issued.proof is None:
            return identity
        account = await self._verifiers.promote(registry, issued.proof)
        if account != issued.account:
            await self.learn(token, replace(issued, account=account))
            self._memo.pop(identity.credential, None)
        return replace(identity, account=account, repositories=issued.repositories)

    async def refused(self, registry: Registry, authorization: str | None) -> None:
        """The registry has answered 401: if a password was sent along, it is wrong. Raises `Busy`."""
        if (claim := basic_claim(authorization)) is not None:
            await self._verifiers.refused(registry, claim)

    async def learn(self, token: str, issued: Issued) -> None:
        """A token service has just given this out. Raises `StoreError`."""
        if (ttl := issued.until - self._clock()) > 0:
            await self._records.put(self.token_key(token), issued.document(), ttl=ttl)

    def token_key(self, token: str) -> str:
        """Of the record of a token. Without the registry: some use the token service of another one."""
        return f"token/{self._keys.name('token', token)}"


def bearer_token(authorization: str) -> str | None:
    """The token of a Bearer credential (RFC 6750)."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
