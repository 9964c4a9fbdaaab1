"""Leaves: a server certificate per intercepted name, made when the name is first asked for.

Decides when a leaf is made anew, and that nothing outside the constraints is. Leaves the TLS contexts to the caller,
who may keep one for as long as `issue` returns the same object. Names come from ClientHellos: what is kept is bounded.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from entrepot.certs import names, profiles
from entrepot.certs.authority import Authority
from entrepot.certs.errors import AuthorityExpired

# Leaves kept per process, 10 kB each. A network uses tens of names; families such as *.azurecr.io let a client make up
# as many as it likes.
_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for one name, with all a TLS server needs."""

    name: str
    chain_pem: bytes
    """The leaf and its issuer; the root is with the client."""
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    key_pem: bytes = field(repr=False)
    not_before: datetime
    renew_at: datetime
    """From then on `issue` makes another; a third of its life is left for contexts that still hold this one."""
    not_after: datetime


class LeafIssuer:
    """Issues and remembers leaves. May be used from several threads."""

    def __init__(
        self, authority: Authority, *, days: int, clock: Callable[[], datetime], capacity: int = _KEPT
    ) -> None:
        """`clock` gives aware times. All leaves share one key, made here and known to this process only."""
        self._authority = authority
        self._life = timedelta(days=days)
        self._clock = clock
        self._capacity = capacity
        self._key = profiles.new_key()
        self._key_pem = profiles.key_pem(self._key)
        self._public = self._key.public_key()
        self._kept: OrderedDict[str, Leaf] = OrderedDict()
        self._lock = Lock()

    def issue(self, name: str) -> Leaf:
        """The leaf for `name`: the one at hand, or a new one. Raises `NameNotPermitted`, `AuthorityExpired`."""
        now = self._clock()
        with self._lock:
            if (kept := self._at_hand(name, now)) is not None:
                return kept
            host = names.checked(name)
            if host != name and (kept := self._at_hand(host, now)) is not None:
                return kept
            leaf = self._fresh(host, now.replace(microsecond=0))
            self._kept[host] = leaf
            self._kept.move_to_end(host)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            return leaf

    def _at_hand(self, name: str, now: datetime) -> Leaf | None:
        kept = self._kept.get(name)
        # A clock that was set back makes a leaf "not yet valid": that one is of no use either.
        if kept is None or not kept.not_before <= now < kept.renew_at:
            return None
        self._kept.move_to_end(name)
        return kept

    def _fresh(self, host: str, now: datetime) -> Leaf:
        issuer = self._authority.issuer(host)
        begins, ends = issuer.not_valid_before_utc, issuer.not_valid_after_utc
        if not begins <= now < ends:
            raise AuthorityExpired(
                f"the CA is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d} and the clock says {now:%Y-%m-%d}; "
                "set the clock, or run `entrepot ca rotate`"
            )
        not_before, not_after = max(begins, now - profiles.BACKDATE), min(ends, now + self._life)
        signed = self._authority.sign(profiles.leaf(host, self._public, issuer, not_before, not_after))
        return Leaf(
            name=host,
            chain_pem=profiles.pem(signed) + profiles.pem(issuer),
            key=self._key,
            key_pem=self._key_pem,
            not_before=not_before,
            renew_at=now + (not_after - now) * 2 / 3,
            not_after=not_after,
        )
