"""Upstream names to addresses, from name servers that are not us and never to an address that is.

Decides which server is asked, how long an answer is kept and which addresses are refused. Leaves to the
configuration which servers there are, and to the connection which address is tried first.

- A and AAAA are asked at once; the slower one is waited for `GRACE_SECONDS` once the other has given addresses.
- The server that answered last is asked first.
- With every server dead an answer up to a day old is good enough: registries move rarely, outages come daily.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from entrepot.tasks import spawn
from entrepot.upstream.errors import LoopDetected, Unreachable
from entrepot.upstream.lookup import AAAA, NOERROR, NXDOMAIN, A, Answer, NotAnAnswer, ask, question

QUERY_SECONDS: Final = 1.5
"""How long one server may take; the next is asked after that."""

ROUNDS: Final = 2
"""How often the list of servers is gone through: UDP loses packets."""

GRACE_SECONDS: Final = 0.3
"""How long addresses of one family wait for those of the other."""

MIN_TTL: Final = 1.0
MAX_TTL: Final = 3600.0
"""Seconds. Bounds on what a server says: 0 would ask anew for every connection of a pull."""

NEGATIVE_SECONDS: Final = 5.0
"""How long "no such name" is believed: short, because a mended name should work at once."""

STALE_SECONDS: Final = 86400.0
"""How old an answer may be when no server is alive."""

UNKNOWN_SECONDS: Final = 0.5
"""How long it is believed that no server answers: it has taken seconds to find out, and may be over."""

STALE_WAIT_SECONDS: Final = 0.5
"""How long to hope for a new answer while an old one is at hand. RFC 8767 section 5 says 1.8, for who only resolves:
here a probe, for which a client waits a second, comes after it."""

MAX_NAMES: Final = 4096
"""Names held. The catalogue has dozens; redirects to per-bucket CDN names make the rest."""

_LOCAL: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a name."""

    addresses: tuple[str, ...]
    """Both families; none when the name has none or nobody could tell."""
    reason: str
    """Why there are none."""
    learned: float
    """When a server said so."""
    expires: float
    """When to ask again."""


class Resolver:
    """Looks names up for the HTTP client. One per event loop.

    `nameservers`: address and port each, asked in this order at first. `own_addresses`: every address of this
    machine we answer on, as of now. `own_ports`: the ports we listen on, when only those make an address ours; None
    refuses it on every port. `clock`: seconds, monotonic. `hosts`: fixed addresses by lower-case name.
    """

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]],
        own_addresses: Callable[[], Collection[str]],
        *,
        clock: Callable[[], float],
        hosts: Mapping[str, Sequence[str]] | None = None,
        own_ports: Collection[int] | None = None,
        query_seconds: float = QUERY_SECONDS,
    ) -> None:
        self._nameservers = list(nameservers)
        self._own_addresses = own_addresses
        self._own_ports = own_ports
        self._clock = clock
        self._query_seconds = query_seconds
        self._hosts = dict(hosts or {})
        self._entries: dict[str, _Entry] = {}
        self._running: dict[str, asyncio.Task[_Entry]] = {}

    async def resolve(self, host: str, port: int | None = None) -> list[str]:
        """The addresses of `host`, at least one. An address, `localhost` and `hosts` stand for themselves.

        Raises Unreachable when there is none to be had, LoopDetected when all there are are our own.
        """
        name = host.rstrip(".").lower()
        if (fixed := self._fixed(name)) is not None:
            return fixed
        entry = self._entries.get(name)
        if entry is None or self._clock() >= entry.expires:
            entry = await self._refresh(name, entry)
        if not entry.addresses:
            raise Unreachable(host, entry.reason)
        foreign = [address for address in entry.addresses if not self.is_own(address, port)]
        if not foreign:
            raise LoopDetected(host, f"resolves to our own address {entry.addresses[0]}")
        return foreign

    def is_own(self, address: str, port: int | None = None) -> bool:
        """Whether a connection to this address would reach ourselves. Names are not addresses: False."""
        try:
            wanted = _plain(address)
        except ValueError:
            return False
        if self._own_ports is not None and port is not None and port not in self._own_ports:
            return False
        if wanted.is_unspecified:  # connects to this machine
            return True
        return any(_plain(own) == wanted for own in self._own_addresses())

    def _fixed(self, name: str) -> list[str] | None:
        try:
            return [str(ipaddress.ip_address(name))]
        except ValueError:
            pass
        if (addresses := self._hosts.get(name)) is not None:
            return list(addresses)
        return list(_LOCAL) if name == "localhost" or name.endswith(".localhost") else None

    async def _refresh(self, name: str, old: _Entry | None) -> _Entry:
        """Asks the servers, once however many wait for it, and not longer than needed if an old answer will do."""
        task = self._running.get(name)
        if task is None:
            task = spawn(self._learn(name, old), name=f"resolve {name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))
        usable = old is not None and bool(old.addresses) and self._clock() - old.learned < STALE_SECONDS
        await asyncio.wait([task], timeout=STALE_WAIT_SECONDS if usable else None)
        return old if old is not None and not task.done() else task.result()

    async def _learn(self, name: str, old: _Entry | None) -> _Entry:
        answers = await self._both_families(name)
        now = self._clock()
        addresses = tuple(address for answer in answers if answer is not None for address in answer.addresses)
        if addresses:
            ttl = min(answer.ttl for answer in answers if answer is not None and answer.addresses)
            entry = _Entry(addresses, "", now, now + min(max(ttl, MIN_TTL), MAX_TTL))
        elif None not in answers:
            entry = _Entry((), "has no address", now, now + NEGATIVE_SECONDS)
        elif old is not None and old.addresses and now - old.learned < STALE_SECONDS:
            entry = replace(old, expires=now + NEGATIVE_SECONDS)
        else:
            entry = _Entry((), "no name server answers for it", now, now + UNKNOWN_SECONDS)
        self._entries.pop(name, None)
        self._entries[name] = entry
        while len(self._entries) > MAX_NAMES:
            del self._entries[next(iter(self._entries))]
        return entry

    async def _both_families(self, name: str) -> list[Answer | None]:
        """AAAA and A, in the order RFC 8305 tries them; None where no server answered in time."""
        try:
            questions = [question(name, kind) for kind in (AAAA, A)]
        except ValueError:  # UnicodeError included: the DNS could not hold it
            return [Answer(NXDOMAIN, False, (), 0.0)]
        tasks = [spawn(self._ask(asked), name=f"query {name}") for asked in questions]
        try:
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(iter(done)).result()
            if waiting:
                await asyncio.wait(waiting, timeout=GRACE_SECONDS if first is not None and first.addresses else None)
            return [task.result() if task.done() else None for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, asked: bytes) -> Answer | None:
        """One family's answer from the first server that has one."""
        for server in list(self._nameservers) * ROUNDS:
            with suppress(OSError, NotAnAnswer):
                answer = await ask(server, asked, seconds=self._query_seconds)
                if answer.rcode in {NOERROR, NXDOMAIN}:
                    self._prefer(server)
                    return answer
        return None

    def _prefer(self, server: tuple[str, int]) -> None:
        if self._nameservers[0] != server:
            self._nameservers.remove(server)
            self._nameservers.insert(0, server)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without zone, and IPv4 inside IPv6 as IPv4: they reach the same machine."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed
