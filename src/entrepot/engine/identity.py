"""Who a request stands for, as far as the box knows: never a credential, only what it is kept under."""

import hashlib
import hmac
from dataclasses import dataclass
from math import inf
from typing import Final

ANONYMOUS: Final = "anonymous"


@dataclass(frozen=True, slots=True)
class Identity:
    """One credential of one registry."""

    registry: str
    credential: str  # ANONYMOUS, or an HMAC of the whole credential
    account: str = ""  # HMAC of the account whose password was verified with this very credential; "" = unknown
    anonymous: bool = False  # carries nobody's rights: no credential, or a token that was issued to nobody
    own: bool = False  # a token of ours, made while upstream was down
    until: float = inf  # epoch seconds at which the credential ends, if known


NOBODY: Final = Identity("", ANONYMOUS, anonymous=True)
"""A request whose credential has not been looked at."""


class Identities:
    """Finds who requests stand for."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def identify(self, registry: str, authorization: str | None) -> Identity:
        """Of a request's `Authorization`."""
        if not authorization:
            return Identity(registry, ANONYMOUS, anonymous=True)
        digest = hmac.new(self._key, f"{registry}\0{authorization}".encode(), hashlib.sha256)
        return Identity(registry, digest.hexdigest())
