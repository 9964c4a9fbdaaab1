"""DNS messages as bytes: what the fast path needs and no more (RFC 1035, 6891).

Decides what a query asks (`read_query`) and how a reply is put together around the query it answers (`compose`): ID,
question with the asker's letter case, flags and EDNS are the query's, the rest is a `Reply`, which may come from
`codec` or from an upstream and fits every asker of the same question. Leaves records to `records` and `codec`.
"""

import struct
from dataclasses import dataclass
from typing import Final

HEADER: Final = struct.Struct("!HHHHHH")  # ID, flags, count of questions, answers, authorities, additionals
OPT: Final = struct.Struct("!BHHBBHH")  # root name, type, UDP size, high rcode bits, version, flags, length of options
RECORD: Final = struct.Struct("!HHIH")  # type, class, TTL, length of data: what follows the name of a record

QR: Final = 0x8000
OPCODE: Final = 0x7800
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
AD: Final = 0x0020
CD: Final = 0x0010
RCODE: Final = 0x000F
DO: Final = 0x8000  # in the flags of OPT

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

TYPE_A: Final = 1
TYPE_SOA: Final = 6
TYPE_PTR: Final = 12
TYPE_HINFO: Final = 13
TYPE_TXT: Final = 16
TYPE_AAAA: Final = 28
TYPE_OPT: Final = 41
TYPE_ANY: Final = 255
CLASS_IN: Final = 1

UDP_SIZE: Final = 1232  # bytes: fits IPv6's smallest MTU, so replies are never fragments; DNS flag day 2020
CLASSIC_SIZE: Final = 512  # bytes over UDP for who does not speak EDNS, RFC 1035 4.2.1
TCP_SIZE: Final = 0xFFFF  # bytes: what the two-byte length of a TCP message can say


@dataclass(frozen=True, slots=True)
class Query:
    """A well-formed query with one question."""

    ident: int
    flags: int
    question: bytes  # name, type, class exactly as asked
    key: bytes  # the same with the name in lower case
    rtype: int
    rclass: int
    edns: bool
    version: int  # of EDNS; 0 without
    do: bool  # wants DNSSEC records
    limit: int  # bytes a reply over UDP may have
    plain: bool  # carries no EDNS option: the same bytes, ID apart, are likely to come again

    @property
    def name(self) -> bytes:
        """The name in wire form, lower case."""
        return self.key[:-4]


@dataclass(frozen=True, slots=True)
class Fault:
    """A query that cannot be read or is none of our business; all that is known to answer it."""

    ident: int
    flags: int
    rcode: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What is the same for all who ask one question.

    `body` is what follows the question; its compression pointers hold because the question has one length in every
    letter case. OPT is never in it: EDNS is between each asker and us.
    """

    flags: int  # AA, TC, RA, AD and the low four bits of the rcode
    answers: int = 0
    authorities: int = 0
    additionals: int = 0
    body: bytes = b""
    extended: int = 0  # the high eight bits of the rcode


def read_query(data: bytes) -> Query | Fault | None:
    """None: nothing that may be answered (too short for an ID, or itself a response)."""
    if len(data) < HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR:
        return None
    if flags & OPCODE:
        return Fault(ident, flags, NOTIMP)
    end = _question_end(data)
    if questions != 1 or answers or authorities or end < 0:
        return Fault(ident, flags, FORMERR)
    question = data[HEADER.size : end]
    edns = _read_edns(data, end, additionals)
    if edns is None:
        return Fault(ident, flags, FORMERR)
    present, size, ttl, options = edns
    return Query(
        ident,
        flags,
        question,
        # The name only: lower() would turn type 65 (HTTPS, 0x41) into 97.
        question[:-4].lower() + question[-4:],
        int.from_bytes(question[-4:-2]),
        int.from_bytes(question[-2:]),
        present,
        ttl >> 16 & 0xFF,
        bool(ttl & DO),
        max(CLASSIC_SIZE, min(size, UDP_SIZE)),
        not options,
    )


def _question_end(data: bytes) -> int:
    """Where the question ends; -1 if it is broken. A question has nothing before it to point at: labels only."""
    at = HEADER.size
    limit = min(len(data) - 4, at + 255)
    while at < limit:
        length = data[at]
        at += 1 + length
        if not length:
            return at + 4
        if length > 63:
            return -1
    return -1


def _read_edns(data: bytes, at: int, records: int) -> tuple[bool, int, int, int] | None:
    """(is there an OPT, its UDP size, its TTL field, length of its options); None if the message is broken.

    Other additional records (TSIG, SIG(0)) are walked over. Bytes after the last record are a broken message.
    """
    found = (False, CLASSIC_SIZE, 0, 0)
    for _ in range(records):
        start = at
        at = skip_name(data, at)
        if at < 0 or at + RECORD.size > len(data):
            return None
        rtype, size, ttl, length = RECORD.unpack_from(data, at)
        if rtype == TYPE_OPT:
            if found[0] or at != start + 1:  # one at most, and its name is the root: RFC 6891 6.1.1
                return None
            found = (True, size, ttl, length)
        at += RECORD.size + length
    return found if at == len(data) else None


def skip_name(data: bytes, at: int) -> int:
    """Where the name at `at` ends, pointers not followed; -1 if it is broken."""
    end = len(data)
    while at < end:
        length = data[at]
        if length >= 0xC0:
            return at + 2
        if length > 63:
            return -1
        at += 1 + length
        if not length:
            return at
    return -1


def compose(query: Query, reply: Reply, limit: int) -> bytes:
    """The reply to `query`, in at most `limit` bytes: what does not fit is cut to an empty one with TC."""
    flags = QR | reply.flags | query.flags & (RD | CD)
    if not (query.do or query.flags & AD):  # RFC 6840 5.7: AD is for who asked for it
        flags &= ~AD
    opt = b""
    if query.edns and reply.flags & RCODE != FORMERR:  # FORMERR without OPT says "ask without EDNS", RFC 6891 7
        opt = OPT.pack(0, TYPE_OPT, UDP_SIZE, reply.extended, 0, DO if query.do else 0, 0)
    question = query.question
    if HEADER.size + len(question) + len(reply.body) + len(opt) > limit:
        return HEADER.pack(query.ident, flags | TC, 1, 0, 0, 1 if opt else 0) + question + opt
    extra = reply.additionals + (1 if opt else 0)
    head = HEADER.pack(query.ident, flags, 1, reply.answers, reply.authorities, extra)
    return head + question + reply.body + opt


def compose_fault(fault: Fault) -> bytes:
    """A reply of a header only: the question could not be read."""
    return HEADER.pack(fault.ident, QR | fault.flags & (OPCODE | RD | CD) | fault.rcode, 0, 0, 0, 0)


def compose_refusal(query: Query) -> bytes:
    """REFUSED for a stranger: the question back and no OPT, so that it is never larger than what was asked."""
    return HEADER.pack(query.ident, QR | query.flags & RD | REFUSED, 1, 0, 0, 0) + query.question


def upstream_query(query: Query, ident: int) -> bytes:
    """The query as an upstream gets it: the question, RD, CD and EDNS with DO; no option of the asker's.

    AD is always asked for, so that one cached answer serves those who want it and those who do not.
    """
    opt = OPT.pack(0, TYPE_OPT, UDP_SIZE, 0, 0, DO if query.do else 0, 0) if query.edns else b""
    flags = query.flags & (RD | CD) | AD
    return HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt


def read_labels(name: bytes) -> tuple[bytes, ...]:
    """The labels of a wire name without pointers, root left out."""
    labels = []
    at = 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels)


def write_name(labels: tuple[bytes, ...]) -> bytes:
    """The wire name of these labels."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


_HOST: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


def host_name(labels: tuple[bytes, ...]) -> str | None:
    """The name as text if it can be a host's; None if a label holds anything else, such as a dot of its own.

    Keeps `quay\\.io` (one label) from being taken for `quay.io` (two).
    """
    if labels and all(_HOST.issuperset(label) for label in labels):
        return b".".join(labels).decode("ascii")
    return None


def printable(labels: tuple[bytes, ...]) -> str:
    """The name for logs and messages: one line whatever it holds."""
    return ".".join(_printable(label) for label in labels) + "."


def _printable(label: bytes) -> str:
    return "".join(chr(b) if b in _HOST else f"\\{b:03d}" for b in label)
