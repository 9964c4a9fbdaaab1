"""Tokens of our own, for the time in which a registry, or its token service, gives none.

1. A token says for whom it was made (an account whose password we have verified, or nobody), which repositories it
   was asked for, and when it ends. It is signed with a key of this box and means nothing to anyone else.
2. It is worth no more than what the box remembers of the account: the grants decide, not the token.
3. It never goes upstream: `holds_own_token` is asked wherever an `Authorization` is passed on. Nothing secret would be
   given away, but upstream would refuse it in words that make no sense to the client.
4. `grace`: it was certain when it was made that upstream is away. Only then does it stand for what the registry has
   accepted longer ago than `access_ttl`.

Decides what a token looks like. Who gets one is decided by `tokens`.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "entrepot~"  # no other token begins like this: a JWT has dots, and the others no tilde up there
LIFE: Final = 300  # seconds, as Docker Hub's
MAX_TOKEN: Final = 16 << 10  # characters
MAX_REPOSITORIES: Final = 32


@dataclass(frozen=True, slots=True)
class OwnToken:
    """What a token of ours says."""

    registry: str  # whose token service it was asked of
    account: str  # "" for nobody
    repositories: frozenset[str]  # what the account may be taken for
    grace: bool
    until: float  # epoch seconds


class OwnTokens:
    """Makes and reads tokens of ours. `clock` gives epoch seconds."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key, self._clock = key, clock

    def mint(self, registry: str, account: str, repositories: frozenset[str], *, grace: bool) -> str:
        """A token that ends in `LIFE` seconds."""
        names = sorted(repositories)[:MAX_REPOSITORIES]
        claims = [registry, account, names, int(grace), int(self._clock()) + LIFE]
        payload = _encoded(json.dumps(claims, separators=(",", ":")).encode())
        return f"{PREFIX}{payload}~{self._seal(payload)}"

    def read(self, token: str) -> OwnToken | None:
        """None for one that is not ours, has been tampered with or has ended."""
        payload, tilde, seal = token.removeprefix(PREFIX).partition("~")
        if not (token.startswith(PREFIX) and tilde and token.isascii() and len(token) <= MAX_TOKEN):
            return None
        if not hmac.compare_digest(seal, self._seal(payload)):
            return None
        registry, account, names, grace, until = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if self._clock() >= until:
            return None
        return OwnToken(registry, account, frozenset(names), bool(grace), float(until))

    def _seal(self, payload: str) -> str:
        return _encoded(hmac.digest(self._key, payload.encode(), hashlib.sha256))


def holds_own_token(authorization: str) -> bool:
    """Whether this `Authorization` holds a token made to look like ours, good or not: no registry knows what to do."""
    scheme, _, token = authorization.strip().partition(" ")
    return scheme.lower() == "bearer" and token.lstrip().startswith(PREFIX)


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
