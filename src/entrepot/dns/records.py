"""An upstream's answer: whether it answers our query, how long it lives, where its TTLs stand (RFC 2181, 2308).

Decides what of the answer is kept: everything but OPT, which was between the upstream and us. Records are walked
over by their lengths and never interpreted, so types invented tomorrow pass through.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

from entrepot.dns.wire import (
    AA,
    AD,
    FORMERR,
    HEADER,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    OPCODE,
    QR,
    RA,
    RCODE,
    RECORD,
    REFUSED,
    SERVFAIL,
    TC,
    TYPE_ANY,
    TYPE_OPT,
    TYPE_SOA,
    Query,
    Reply,
    skip_name,
)

TTL: Final = struct.Struct("!I")
_KEPT_FLAGS: Final = AA | TC | RA | AD | RCODE
_LONGEST: Final = 86_400  # seconds an answer is kept at most; RFC 8767 4 recommends a limit, a day is common
_LONGEST_NEGATIVE: Final = 3_600  # seconds; RFC 2308 5: one to three hours is sensible
_BARE_REFUSALS: Final = frozenset((FORMERR, SERVFAIL, NOTIMP, REFUSED))


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with what its age changes."""

    reply: Reply
    ttls: tuple[tuple[int, int], ...] = ()  # (offset in the body, seconds), one for each record
    life: int = 0  # seconds it may be kept; 0 = not at all

    @property
    def rcode(self) -> int:
        """The low four bits: enough to tell an answer from a failure."""
        return self.reply.flags & RCODE

    def aged(self, seconds: int) -> Reply:
        """The reply as it is to be given out `seconds` after it came; what is kept is not authoritative."""
        body = bytearray(self.reply.body)
        for offset, ttl in self.ttls:
            TTL.pack_into(body, offset, max(0, ttl - seconds))
        return replace(self.reply, flags=self.reply.flags & ~AA, body=bytes(body))

    def capped(self, seconds: int) -> "Answer":
        """The same with no TTL above `seconds`."""
        ttls = tuple((offset, min(ttl, seconds)) for offset, ttl in self.ttls)
        capped = Answer(self.reply, ttls, min(self.life, seconds))
        return replace(capped, reply=replace(capped.aged(0), flags=self.reply.flags))


def read_answer(data: bytes, ident: int, query: Query) -> Answer | None:
    """The answer to the query sent as `ident`; None if it is not that, or broken."""
    if len(data) < HEADER.size:
        return None
    found, flags, questions, *counts = HEADER.unpack_from(data)
    if found != ident or not flags & QR or flags & OPCODE:
        return None
    if questions == 0 and flags & RCODE in _BARE_REFUSALS and not any(counts[:2]):
        return Answer(Reply(flags & _KEPT_FLAGS))  # a server that could not read the question: header only
    end = HEADER.size + len(query.question)
    asked = data[HEADER.size : end]
    if questions != 1 or asked[:-4].lower() + asked[-4:] != query.key:
        return None
    if flags & TC:
        # Whoever gets it asks again over TCP and throws the partial records away: so do we.
        return Answer(Reply(flags & _KEPT_FLAGS))
    return _Walk(data, end, query).answer(flags & _KEPT_FLAGS, counts)


class _Walk:
    """One pass over the records of one answer."""

    def __init__(self, data: bytes, start: int, query: Query) -> None:
        self._data = data
        self._start = self._at = start
        self._query = query
        self._ttls: list[tuple[int, int]] = []
        self._minimum: int | None = None  # of the SOA in the authority section
        self._positive = False
        self._extended = 0

    def answer(self, flags: int, counts: list[int]) -> Answer | None:
        answers, authorities, additionals = (self._section(section, count) for section, count in enumerate(counts))
        if min(answers, authorities, additionals) < 0:
            return None
        body = bytearray(self._data[self._start : self._at])
        for offset, ttl in self._ttls:
            TTL.pack_into(body, offset, ttl)
        reply = Reply(flags, answers, authorities, additionals, bytes(body), self._extended)
        return Answer(reply, tuple(self._ttls), self._life(flags & RCODE))

    def _section(self, section: int, count: int) -> int:
        """How many records are kept; -1 if one is broken.

        OPT is dropped, and with it what follows it: its pointers could lead past the hole. That is additional data,
        which may be left out, and OPT usually is the last record anyway.
        """
        data = self._data
        for number in range(count):
            at = skip_name(data, self._at)
            if at < 0 or at + RECORD.size > len(data):
                return -1
            rtype, _, ttl, length = RECORD.unpack_from(data, at)
            end = at + RECORD.size + length
            if end > len(data):
                return -1
            if section == 2 and rtype == TYPE_OPT:
                self._extended = ttl >> 24
                return number
            self._note(section, rtype, ttl, at + 4 - self._start, end)
            self._at = end
        return count

    def _note(self, section: int, rtype: int, ttl: int, offset: int, end: int) -> None:
        ttl = 0 if ttl >> 31 else ttl  # RFC 2181 8
        if section == 0 and self._query.rtype in (rtype, TYPE_ANY):
            self._positive = True
        elif section == 1 and rtype == TYPE_SOA and not self._positive:
            # The last field of the data; a SOA too short to have one gives some other number, and no harm.
            ttl = self._minimum = min(ttl, int.from_bytes(self._data[end - 4 : end]))
        self._ttls.append((offset, ttl))

    def _life(self, rcode: int) -> int:
        """RFC 2308: a negative answer lives by its SOA, and one without SOA is not kept."""
        if rcode not in (NOERROR, NXDOMAIN) or self._extended or not self._ttls:
            return 0
        shortest = min(ttl for _, ttl in self._ttls)
        if self._positive and rcode == NOERROR:
            return min(shortest, _LONGEST)
        return 0 if self._minimum is None else min(shortest, _LONGEST_NEGATIVE)
