"""The UDP server: packets in, replies out, from the address they were sent to.

Decides how many packets are answered in one wake-up and takes the fast path: a packet whose bytes, ID apart, were
answered before gets that reply with its own ID, and nothing is parsed. All else is the handler's. Plain sockets and
a reader callback, because asyncio's datagram transport drops the kernel's note about the local address, and because
one wake-up per packet costs more than an answer.
"""

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from entrepot.dns.handling import Handler, Here
from entrepot.dns.sockets import ANCILLARY_SIZE, Ancillary, arrival

_log: Final = logging.getLogger("entrepot.dns")

_BATCH: Final = 64  # packets per wake-up, so that TCP, timers and upstreams are not starved
_RECEIVE: Final = 4_096  # bytes; a longer query is cut, and thereby malformed
_MAX_PLACES: Final = 256  # local addresses remembered

type Place = tuple[Here, Ancillary]


class UdpServer:
    """One socket, made by `sockets.bind`. Lives from `start` to `close`."""

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        self._sock = sock
        self._handler = handler
        self._places: dict[bytes, Place | None] = {}  # by the kernel's note
        self._generation = -1

    def start(self) -> None:
        """In a running loop."""
        self._sock.setblocking(False)  # it may have come from another process, which does not carry this over
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def close(self) -> None:
        """The socket, too."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        handler = self._handler
        now = handler.tick()
        if self._generation != handler.generation:
            self._generation = handler.generation
            self._places.clear()
        fast = not _log.isEnabledFor(logging.DEBUG)  # every query is to be seen in the log then
        recvmsg, sendmsg, admits, places = self._sock.recvmsg, self._sock.sendmsg, handler.admits, self._places
        intercepted = cached = 0
        for _ in range(_BATCH):
            try:
                data, notes, _, peer = recvmsg(_RECEIVE, ANCILLARY_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as failure:  # an earlier reply bounced; the next packet is a new one
                _log.debug("receiving: %s", failure)
                continue
            note = notes[0][2] if notes else b""
            place = places.get(note) or self._place(note, notes)
            if place is None:
                continue
            ready = place[0].ready.get(data[2:]) if fast else None
            if ready is not None and ready.until > now and admits(peer[0]):
                if ready.intercepted:
                    intercepted += 1
                else:
                    cached += 1
                try:
                    sendmsg((data[:2] + ready.tail,), place[1], 0, peer)
                except OSError as failure:
                    self._unsent(peer, failure)
            else:
                self._slow(data, peer, place)
        counters = handler.counters
        counters.queries += intercepted + cached
        counters.intercepted += intercepted
        counters.cached += cached

    def _slow(self, data: bytes, peer: tuple[str, int], place: Place) -> None:
        here, source = place
        try:
            send = partial(self._send, peer, source)
            reply = self._handler.handle(data, peer[0], here, send, over_tcp=False)
        except Exception:  # a bug of ours must cost one answer, not the service
            self._handler.counters.crashed += 1
            _log.exception("answering a query of %d bytes", len(data))
            return
        if reply:
            send(reply)

    def _send(self, peer: tuple[str, int], source: Ancillary, reply: bytes) -> None:
        try:
            self._sock.sendmsg((reply,), source, 0, peer)
        except OSError as failure:
            self._unsent(peer, failure)

    def _unsent(self, peer: tuple[str, int], failure: OSError) -> None:
        """Full buffers, no route back: UDP may lose packets, and clients ask again."""
        self._handler.counters.unsent += 1
        _log.debug("replying to %s: %s", peer[0], failure)

    def _place(self, note: bytes, notes: Ancillary) -> Place | None:
        """None: a packet to a group, which is not for us to answer."""
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        if notes:
            arrived = arrival(notes[0])
            place = (self._handler.here(arrived.address, arrived.interface), arrived.source) if arrived else None
        else:  # no such note on this system: right for a socket that is bound to one address
            place = (self._handler.here(self._sock.getsockname()[0], 0), [])
        self._places[note] = place
        return place
