"""A client's connection as long as nothing unusual comes over it: TLS, requests, answers, one after the other.

1. The handshake is for a name of the catalogue, or it ends with the alert `unrecognized_name` (RFC 6066 3).
2. A head that has just been answered is answered again from `ready`.
3. A pull or a request for a token becomes an `Exchange`, answered by `pulls` while what comes next waits.
4. Anything else takes the connection, with all that has been read, to mitmproxy, for good.
5. What the parser does not accept as HTTP gets 400 and reaches nobody.

No task, no layer, no hook and no stream is made for a connection: docker makes a new one for every request.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast, override

from OpenSSL import SSL

from entrepot.addons.exchange import exchange_for, is_ours
from entrepot.addons.http1 import BAD_REQUEST, END, MAX_HEAD, Head, parse_head
from entrepot.addons.pump import GONE
from entrepot.addons.ready import Ready
from entrepot.addons.tls import UNRECOGNIZED_NAME
from entrepot.tasks import spawn

if TYPE_CHECKING:
    from entrepot.addons.pulls import Pulls

HANDSHAKE_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 300.0  # without a byte, waiting for a request
AHEAD: Final = MAX_HEAD + (64 << 10)  # bytes that a client may send ahead of our answer

_log: Final = logging.getLogger("entrepot.tls")

type HandOver = Callable[["Front", bytes], None]
"""Takes a connection on which something is asked that is not ours, and what has been read of it."""


class Front(asyncio.Protocol):
    """One connection; also the `Client` of its exchanges."""

    def __init__(self, pulls: "Pulls", fronts: set["Front"], hand_over: HandOver) -> None:
        """`fronts`: it is in there as long as it lives and is not handed over."""
        self._loop = asyncio.get_running_loop()
        self._pulls, self._fronts, self._hand_over = pulls, fronts, hand_over
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._open = False  # the handshake is over
        self._buffer = bytearray()  # decrypted, not yet answered
        self.busy = False  # an answer is on its way
        self._serving = False  # `_serve` is at it
        self._awaiting: tuple[Head, int] | None = None  # a head of ours whose form is on its way, and its bytes
        self._ended = False
        self._room = asyncio.Event()  # in the transport's buffer
        self._room.set()
        self.clean_end = True
        self.address = "?"
        self.name = ""
        self.tls = pulls.contexts.connection()
        self._since = 0.0

    # asyncio's side

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fd = transport.get_extra_info("socket").fileno()
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "?"
        self._since = self._loop.time()
        self._fronts.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._room.set()
        self._fronts.discard(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._since = self._loop.time()
        try:
            self.tls.bio_write(data)
            if self._open or self._shake_hands():
                over = self._decrypt()
                self._serve()
                if over and not self._ended:
                    self._read_all()
        except GONE as e:
            _log.debug("client=%s name=%s: %s", self.address, self.name, e)
            self._abort()

    @override
    def eof_received(self) -> bool:
        self._read_all()
        return self.busy  # what is under way may still be written

    def _read_all(self) -> None:
        """The client will ask nothing more."""
        if self.busy:
            self._ended = True
        else:
            self._goodbye()

    # the handshake

    def _shake_hands(self) -> bool:
        """Whether it is over."""
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error as e:
            self._refuse(e)
            return False
        self._open = True
        self.name = (self.tls.get_servername() or b"").decode("ascii", "replace").lower().removesuffix(".")
        return True

    def _refuse(self, error: SSL.Error) -> None:
        if (name := self._pulls.contexts.refused(self.tls)) is not None:
            self._pulls.refused(self.address, name)
            if self._transport is not None:
                self._transport.write(UNRECOGNIZED_NAME)
        else:
            _log.info("handshake failed client=%s name=%s: %s", self.address, _name_of(self.tls), _reason(error))
            self._flush()  # the alert that says why
        self.clean_end = False
        self._goodbye()

    # requests

    def _decrypt(self) -> bool:
        """Takes what has come; whether the client has said goodbye."""
        try:
            while plain := self._pulls.records.read(self.tls):
                self._buffer += plain
        except SSL.ZeroReturnError:
            return True
        except SSL.Error as e:
            # A client that does not trust our authority says so here: in TLS 1.3 its side of the handshake is later.
            _log.info("client=%s name=%s ended the connection: %s", self.address, self.name, _reason(e))
            self.clean_end = False
            return True
        return False

    def _serve(self) -> None:
        """Answers what can be answered at once, and begins with what cannot."""
        self._serving = True
        try:
            while self._buffer and not self.busy and not self._ended and self._room.is_set() and self._next():
                pass
            if not self._ended:
                self._flush()
                self._read_on_or_wait()
        finally:
            self._serving = False

    def _next(self) -> bool:
        """Deals with the request at the front of the buffer; False if it is not all there, or there is nothing more."""
        buffer = self._buffer
        if self._awaiting is None:
            end = buffer.find(END) + len(END)
            if end < len(END):
                if len(buffer) > MAX_HEAD or b"\n\n" in buffer:
                    self._give_up()
                return False
            raw = bytes(buffer[:end])
            if (known := self._pulls.ready.get(self.name, raw)) is not None:
                del buffer[:end]
                return self._repeat(known)
            if (head := parse_head(raw)) is None:
                self.tls.sendall(BAD_REQUEST)
                self._flush()
                self._goodbye()
                return False
            if not is_ours(head, self.name):
                self._give_up()
                return False
            self._awaiting = head, end
        head, end = self._awaiting
        if len(buffer) < end + head.form:
            return False
        raw, form = bytes(buffer[:end]), bytes(buffer[end : end + head.form])
        del buffer[: end + head.form]
        self._awaiting = None
        self._flush()  # what has been answered is not to wait
        self.busy = True
        spawn(self._answer(head, form, raw), name="answer")
        return True

    def _repeat(self, known: Ready) -> bool:
        self.tls.sendall(known.wire)
        self._pulls.note_ready(self.address, known)
        if not known.keep_alive:
            self._flush()
            self._goodbye()
        return known.keep_alive

    async def _answer(self, head: Head, form: bytes, raw: bytes) -> None:
        exchange = exchange_for(self, head, self.name, form, raw)
        try:
            await self._pulls.registry_pull(exchange)
        finally:
            self.busy = False
            self._since = self._loop.time()
            if not exchange.keep_alive or self._ended:
                self._goodbye()
        if not self._serving:
            self._go_on()

    def _go_on(self) -> None:
        """With what has come meanwhile."""
        if self._transport is None or self._ended or self.busy:
            return
        try:
            self._serve()
        except GONE:
            self._abort()

    def _read_on_or_wait(self) -> None:
        """A client that asks faster than it reads, or than we answer, is not read for a while."""
        if self._transport is None:
            return
        ahead = len(self._buffer) > AHEAD
        if ahead and self._transport.is_reading():
            self._transport.pause_reading()
        elif not ahead and not self._transport.is_reading():
            self._transport.resume_reading()

    def _give_up(self) -> None:
        """To mitmproxy."""
        self._flush()
        self._ended = True
        self._fronts.discard(self)
        self._hand_over(self, bytes(self._buffer))

    # writing

    @property
    def fd(self) -> int:
        """Of the socket."""
        return self._fd

    @property
    def transport(self) -> asyncio.Transport:
        """Raises KeyError when the client is gone."""
        if self._transport is None:
            raise KeyError("the client is gone")
        return self._transport

    @property
    def writer(self) -> "Front":
        """Ourselves. Raises KeyError when the client is gone."""
        if self._transport is None:
            raise KeyError("the client is gone")
        return self

    def write(self, data: bytes) -> None:
        """Behind what the socket has not taken yet."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Returns when there is room for more. Raises OSError when the client is gone."""
        await self._room.wait()
        if self._transport is None:
            raise ConnectionResetError("the client is gone")

    @override
    def pause_writing(self) -> None:
        self._room.clear()

    @override
    def resume_writing(self) -> None:
        self._room.set()
        if not self.busy and not self._ended:
            self._loop.call_soon(self._go_on)

    def _flush(self) -> None:
        """Hands all records that OpenSSL has ready to the socket, or to the transport."""
        if self._transport is not None:
            self._pulls.records.write(self.tls, self._transport, self._fd)

    # the end

    def overdue(self, now: float) -> bool:
        """Nothing has happened for too long. `now` by the loop's clock."""
        return not self.busy and now - self._since > (IDLE_SECONDS if self._open else HANDSHAKE_SECONDS)

    def end(self) -> None:
        """Closes the connection, whatever it is doing."""
        if self.busy:  # whoever is at the answer notices that nobody is there any more
            self.clean_end = False
        self._goodbye()

    def _goodbye(self) -> None:
        """With close_notify unless the body ended short; and FIN."""
        self._ended = True
        if self._transport is None:
            return
        if self.clean_end and self._open:
            try:
                self.tls.shutdown()
                self._flush()
            except GONE:
                pass  # it is gone already
        self._transport.close()

    def _abort(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()


def _name_of(tls: SSL.Connection) -> str:
    return (tls.get_servername() or b"?").decode("ascii", "replace")


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words for it."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    said = [entry[-1] for entry in queue if entry and entry[-1]]
    return said[-1] if said else type(error).__name__
