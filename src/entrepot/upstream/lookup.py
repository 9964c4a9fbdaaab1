"""One DNS question to one server: what is asked, what is read from the answer, and the sockets.

Decides which datagram counts as the answer to a question and which addresses in it are those of the name. Leaves
the bytes to dnslib, of which only the codec is used, and to the resolver whom to ask, how often, and how long to
believe it.
"""

import asyncio
import ipaddress
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, override

# Untyped: what comes out of dnslib is Any until it stands in an Answer.
from dnslib import CLASS, QTYPE, DNSBuffer, DNSError, DNSHeader, DNSLabel, DNSLabelError, DNSQuestion, DNSRecord
from dnslib.buffer import BufferError as OutOfBounds

from entrepot.errors import EntrepotError

A: Final = 1
AAAA: Final = 28
NOERROR: Final = 0
NXDOMAIN: Final = 3

_MAX_CHAIN: Final = 16  # CNAMEs in a row; CDNs use four or five
_MAX_STEPS: Final = 1 << 17  # reads in one message: 64 KiB of A records of a name of a dozen labels need fewer
_UNREADABLE: Final = (DNSError, DNSLabelError, OutOfBounds, struct.error, UnicodeError, LookupError, RecursionError)


class NotAnAnswer(EntrepotError, ValueError):
    """Bytes that are no answer to this question."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. No addresses with NOERROR: the name has none of this family."""

    rcode: int
    truncated: bool
    addresses: tuple[str, ...]
    ttl: float
    """Seconds; the least along the chain of CNAMEs. Without addresses it says nothing."""


def question(name: str, kind: int) -> bytes:
    """A query for the A or AAAA records of `name`. Raises ValueError for what cannot be a name."""
    label = DNSLabel(name.rstrip(".").encode("ascii"))
    if not label.label or b"" in label.label:
        raise ValueError(f"{name!r} is not a host name")
    # An id of our own making: dnslib's can be guessed. Without `bitmap` it sets "recursion desired" and nothing else.
    message = DNSRecord(DNSHeader(id=secrets.randbelow(1 << 16)), q=DNSQuestion(label, kind))
    try:
        return bytes(message.pack())
    except DNSLabelError as error:
        raise ValueError(f"{name!r} is not a host name") from error


def read(message: bytes, asked: bytes) -> Answer:
    """Takes an answer to `asked` apart, CNAMEs followed inside it. Raises NotAnAnswer for anything else."""
    try:
        return _read(message, DNSRecord.parse(asked))
    except _UNREADABLE as error:
        raise NotAnAnswer("a message that cannot be read") from error


class _Buffer(DNSBuffer):  # type: ignore[misc]  # untyped
    """Reads no more than `_MAX_STEPS` times: dnslib follows pointers of a name in circles, and any number of labels."""

    _steps = 0

    @override
    def get(self, length: int) -> bytes:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise OutOfBounds("a message that takes too long to read")
        data: bytes = super().get(length)
        return data

    def name(self) -> DNSLabel:
        """The name that comes next, within the lengths of RFC 1035 section 3.1, which dnslib does not look at."""
        name = self.decode_name()
        if len(name) > 253 or any(len(label) > 63 for label in name.label):
            raise NotAnAnswer("a name that is none")
        return name


def _read(message: bytes, sent: DNSRecord) -> Answer:
    buffer = _Buffer(message)
    header = DNSHeader.parse(buffer)
    if (header.id, header.qr, header.opcode, header.q) != (sent.header.id, 1, 0, 1):
        raise NotAnAnswer("not an answer to our question")
    if DNSQuestion.parse(buffer) != sent.q:
        raise NotAnAnswer("an answer to another question")
    if header.tc:
        return Answer(header.rcode, True, (), 0.0)
    addresses, aliases = _records(buffer, header.a, sent.q.qtype)
    name = sent.q.qname
    ttl = float("inf")
    for _ in range(_MAX_CHAIN):
        if name in addresses:
            found = addresses[name]
            return Answer(header.rcode, False, tuple(text for text, _ in found), min(ttl, *(age for _, age in found)))
        if name not in aliases:
            break
        name, age = aliases[name]
        ttl = min(ttl, age)
    return Answer(header.rcode, False, (), 0.0)


type _Addresses = dict[DNSLabel, list[tuple[str, float]]]
type _Aliases = dict[DNSLabel, tuple[DNSLabel, float]]


def _records(buffer: _Buffer, count: int, kind: int) -> tuple[_Addresses, _Aliases]:
    """By owner; dnslib compares names without regard to case.

    Not with its RR.parse, which ignores the length of A, AAAA and CNAME and takes records apart that nobody asked for.
    """
    addresses: _Addresses = {}
    aliases: _Aliases = {}
    width = 4 if kind == A else 16
    for _ in range(count):
        owner = buffer.name()
        rtype, rclass, ttl, length = buffer.unpack("!HHIH")
        start = buffer.offset
        data = buffer.get(length)
        if rclass != CLASS.IN:
            continue
        if rtype == kind:
            if length != width:
                raise NotAnAnswer("an address of the wrong length")
            addresses.setdefault(owner, []).append((str(ipaddress.ip_address(data)), float(ttl)))
        elif rtype == QTYPE.CNAME:
            buffer.offset = start  # its name may point to others in the message
            aliases[owner] = (buffer.name(), float(ttl))
            if buffer.offset != start + length:
                raise NotAnAnswer("an alias of the wrong length")
    return addresses, aliases


async def ask(server: tuple[str, int], asked: bytes, *, seconds: float) -> Answer:
    """Asks over UDP, and over TCP when the answer does not fit.

    Raises OSError (TimeoutError too) when the server cannot be reached or stays silent, NotAnAnswer when what it
    sends over TCP is none. Over UDP other datagrams are skipped: anyone can send those.
    """
    async with asyncio.timeout(seconds):
        answer = await _over_udp(server, asked)
        return await _over_tcp(server, asked) if answer.truncated else answer


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, accept: Callable[[bytes], None], fail: Callable[[Exception], None]) -> None:
        self._accept = accept
        self._fail = fail

    @override
    def datagram_received(self, data: bytes, addr: object) -> None:
        self._accept(data)

    @override
    def error_received(self, exc: Exception) -> None:
        self._fail(exc)


async def _over_udp(server: tuple[str, int], asked: bytes) -> Answer:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def accept(data: bytes) -> None:
        try:
            parsed = read(data, asked)
        except NotAnAnswer:
            return
        if not answer.done():
            answer.set_result(parsed)

    def fail(error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    # A connected socket: a closed port is heard of at once, and only the server's datagrams come in.
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(accept, fail), remote_addr=server)
    try:
        transport.sendto(asked)
        return await answer
    finally:
        transport.close()


async def _over_tcp(server: tuple[str, int], asked: bytes) -> Answer:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(asked).to_bytes(2) + asked)
        await writer.drain()
        size = int.from_bytes(await reader.readexactly(2))
        return read(await reader.readexactly(size), asked)
    except asyncio.IncompleteReadError as error:
        raise NotAnAnswer("a message that is cut short") from error
    finally:
        writer.close()
