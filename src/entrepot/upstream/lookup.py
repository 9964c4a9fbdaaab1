"""One DNS question to one server: the bytes and the sockets.

Decides how a question for the addresses of a name is written, which datagram counts as its answer and what is read
from it. Leaves to the resolver whom to ask, how often, and how long to believe it.

Not dnspython: the folder `dns` at the top of a checkout hides that package from everything started there. What is
needed is one question type of RFC 1035 and its answer, which `read` takes apart or refuses with `NotAnAnswer`.
"""

import asyncio
import ipaddress
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, override

from entrepot.errors import EntrepotError

A: Final = 1
AAAA: Final = 28
NOERROR: Final = 0
NXDOMAIN: Final = 3

_CNAME: Final = 5
_IN: Final = 1
_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!HHIH")
_ANSWER_BITS: Final = 0xF800  # QR and opcode; an answer to a query has QR alone
_TRUNCATED: Final = 0x0200
_MAX_LABELS: Final = 127  # RFC 1035 section 3.1: 255 bytes, two at least for each label
_MAX_CHAIN: Final = 16  # CNAMEs in a row; CDNs use four or five


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
    labels = name.rstrip(".").encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError(f"{name!r} is not a host name")
    header = _HEADER.pack(secrets.randbelow(1 << 16), 0x0100, 1, 0, 0, 0)  # recursion desired
    encoded = b"".join(bytes([len(label)]) + label for label in labels)
    return header + encoded + b"\0" + struct.pack("!HH", kind, _IN)


def read(message: bytes, asked: bytes) -> Answer:
    """Takes an answer to `asked` apart, CNAMEs followed inside it. Raises NotAnAnswer for anything else."""
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
        end = len(asked)
        if message[:2] != asked[:2] or flags & _ANSWER_BITS != 0x8000 or questions != 1:
            raise NotAnAnswer("not an answer to our question")
        if message[12:end].lower() != asked[12:].lower():
            raise NotAnAnswer("an answer to another question")
        if flags & _TRUNCATED:
            return Answer(flags & 0xF, True, (), 0.0)
        kind = int.from_bytes(asked[-4:-2])
        addresses, aliases = _records(message, end, answers, kind)
        name, _ = _name(message, 12)
    except (struct.error, IndexError) as error:
        raise NotAnAnswer("a message that is cut short") from error
    ttl = float("inf")
    for _ in range(_MAX_CHAIN):
        if name in addresses:
            found = addresses[name]
            return Answer(flags & 0xF, False, tuple(text for text, _ in found), min(ttl, *(age for _, age in found)))
        if name not in aliases:
            break
        name, age = aliases[name]
        ttl = min(ttl, age)
    return Answer(flags & 0xF, False, (), 0.0)


type _Addresses = dict[tuple[bytes, ...], list[tuple[str, float]]]
type _Aliases = dict[tuple[bytes, ...], tuple[tuple[bytes, ...], float]]


def _records(message: bytes, offset: int, count: int, kind: int) -> tuple[_Addresses, _Aliases]:
    addresses: _Addresses = {}
    aliases: _Aliases = {}
    width = 4 if kind == A else 16
    for _ in range(count):
        owner, offset = _name(message, offset)
        rtype, rclass, ttl, length = _RECORD.unpack_from(message, offset)
        offset += _RECORD.size
        data = message[offset : offset + length]
        if len(data) != length:
            raise NotAnAnswer("a message that is cut short")
        if rclass == _IN and rtype == kind:
            if length != width:
                raise NotAnAnswer("an address of the wrong length")
            addresses.setdefault(owner, []).append((str(ipaddress.ip_address(data)), float(ttl)))
        elif rclass == _IN and rtype == _CNAME:
            aliases[owner] = (_name(message, offset)[0], float(ttl))
        offset += length
    return addresses, aliases


def _name(message: bytes, offset: int) -> tuple[tuple[bytes, ...], int]:
    """The name at `offset`, in lower case, and where what follows it begins. A pointer must lead backwards."""
    labels: list[bytes] = []
    after: int | None = None
    limit = offset
    while length := message[offset]:
        if length >= 0xC0:
            after = offset + 2 if after is None else after
            offset = (length & 0x3F) << 8 | message[offset + 1]
            if offset >= limit:
                raise NotAnAnswer("a name that points forward")
            limit = offset
        elif length >= 0x40 or len(labels) == _MAX_LABELS:
            raise NotAnAnswer("a name that is none")
        else:
            labels.append(message[offset + 1 : offset + 1 + length].lower())
            offset += 1 + length
    return tuple(labels), offset + 1 if after is None else after


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
