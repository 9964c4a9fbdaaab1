"""Faults that tests order from the upstream: which requests they meet, and what they do to a body on its way.

A fault is an object in `faults.json`, which is read anew at each request. Its `host`, `method` and `path` (regular
expressions) say which requests it meets, `count` how many of them; a request meets the first fault that is left for it,
so that faults in a row meet requests in a row. A fault does one or more of:

    before the answer
      delay           seconds to wait first
      hold            true: no answer until the fault is taken away
      hold_until      no answer until a file of that name exists
      status          answer that, with `headers` and `body`, and nothing of what is below
    the token that a token service gives out
      life            seconds that it is good for
    where a registry sends its clients for a blob
      direct          true: to a port without nginx, so that what happens there reaches the wire just so
      relative        true: to a place on the registry's own host, by a URL without a host
      expired         true: with a signature that is no longer good
    what a content network answers
      moved           true: with a redirect to itself, by a URL relative to its own
      ignore_range    true: with 200 and all of it, whatever the range
      shift           bytes: the range from so much later on (or earlier), and says so
      from_elsewhere  bytes: the same, and says what was asked for
    the body
      instead         that text as HTML, with its own length
      wrong_at        position in the blob of a byte that is turned round
      gzip            "label": says it is compressed, which it is not; "body": compresses it too
      length          bytes by which the stated length is wrong; null: none is stated, but chunks are sent
    its transport
      drip_after      bytes of the body; from there on one byte now and then until the file `drip_until` exists
      pause_after     bytes of the body, then nothing until the fault is taken away
      cut_after       bytes of the body, then the connection is closed
      reset_after     bytes of the body, then the connection is reset
      rate            bytes per second
"""

import asyncio
import gzip
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

type Fault = Mapping[str, Any]

DIRECT_PORT = 8443
DRIP = 0.05  # seconds from one byte to the next
LOOK = 0.02  # seconds between looks at what is waited for
STOPS = ("drip_after", "pause_after", "cut_after", "reset_after")


def host_of(request: web.BaseRequest) -> str:
    return request.host.partition(":")[0]


class Faults:
    """The faults that are ordered now, and whom they have met."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._met: dict[int, int] = {}

    def active(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._path.read_text())
        return found

    def meet(self, request: web.BaseRequest) -> Fault:
        """The first fault for this request, or an empty one."""
        wanted = (("host", host_of(request)), ("method", request.method), ("path", request.path))
        for fault in self.active():
            if not all(re.fullmatch(fault.get(key, ".*"), value) for key, value in wanted):
                continue
            met = self._met.get(fault["id"], 0)
            if met < fault.get("count", met + 1):
                self._met[fault["id"]] = met + 1
                return fault
        return {}

    def here(self, fault: Fault) -> bool:
        return any(each["id"] == fault["id"] for each in self.active())

    async def gone(self, fault: Fault) -> None:
        while self.here(fault):
            await asyncio.sleep(LOOK)

    async def hold(self, fault: Fault) -> None:
        """Waits for what is to be waited for before the answer."""
        await asyncio.sleep(fault.get("delay", 0))
        while "hold_until" in fault and not there(fault["hold_until"]):
            await asyncio.sleep(LOOK)
        if "hold" in fault:
            await self.gone(fault)


def there(file: str) -> bool:
    return Path(file).exists()


@dataclass(frozen=True, slots=True)
class Body:
    """An answer of unknown size in memory: where its bytes come from and how many there are."""

    status: int
    headers: dict[str, str]
    length: int | None
    chunks: AsyncIterator[bytes]
    start: int = 0  # position in the blob of its first byte


async def spoiled(body: Body, fault: Fault) -> Body:
    """The answer with its head and bytes as `fault` wants them."""
    if "instead" in fault:
        text = fault["instead"].encode()
        body = Body(200, {"Content-Type": "text/html; charset=utf-8"}, len(text), _once(text))
    if "wrong_at" in fault:
        body = replace(body, chunks=_turned(body.chunks, fault["wrong_at"] - body.start))
    if "gzip" in fault:
        body = replace(body, headers={**body.headers, "Content-Encoding": "gzip"})
        if fault["gzip"] == "body":
            packed = gzip.compress(b"".join([chunk async for chunk in body.chunks]), compresslevel=1)
            body = replace(body, length=len(packed), chunks=_once(packed))
    if "length" in fault:
        wrong = fault["length"]
        body = replace(body, length=None if wrong is None or body.length is None else body.length + wrong)
    return body


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _turned(chunks: AsyncIterator[bytes], at: int) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if 0 <= at < len(chunk):
            yield chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
        else:
            yield chunk
        at -= len(chunk)


async def hindered(body: Body, fault: Fault, faults: Faults, request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The bytes of the answer, held up or cut short as `fault` says."""
    stops = sorted((fault[key], key) for key in STOPS if key in fault)
    done = 0
    async for chunk in body.chunks:
        rest = chunk
        while stops and done + len(rest) >= stops[0][0]:
            at, what = stops.pop(0)
            yield rest[: at - done]
            rest, done = rest[at - done :], at
            if what == "drip_after":
                while len(rest) > 1 and not there(fault["drip_until"]):
                    yield rest[:1]
                    rest, done = rest[1:], done + 1
                    await asyncio.sleep(DRIP)
            elif what == "pause_after":
                await faults.gone(fault)
            else:
                await break_off(request, reset=what == "reset_after")
        if rest:
            yield rest
            done += len(rest)
        if "rate" in fault:
            await asyncio.sleep(len(chunk) / fault["rate"])


async def break_off(request: web.BaseRequest, *, reset: bool) -> None:
    """Ends the connection; always raises."""
    await asyncio.sleep(0.05)  # what was written should leave first
    assert request.transport is not None
    if reset:
        peer = request.transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    else:
        request.transport.close()
    raise ConnectionResetError("fault: cut")
