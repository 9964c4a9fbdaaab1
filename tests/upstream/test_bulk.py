"""Long bodies taken straight off their socket: the same bytes, and the same ends, as `Response.chunks` gives."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tests.upstream.loopback import Answer, Issued, Request, Server, client, head, issue, ok, sends, serving

from entrepot.headers import Headers
from entrepot.upstream.bulk import PIECE
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import BrokenBody
from entrepot.upstream.response import MIN_BULK, Response

BODY = os.urandom(5 << 20)

type Asked = Callable[..., AbstractAsyncContextManager[tuple[Response, Server, UpstreamClient]]]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issue(tmp_path_factory.mktemp("pki"), "bulk")


@pytest.fixture(params=["https", "http"])
def asked(request: pytest.FixtureRequest, issued: Issued) -> Asked:
    tls = request.param == "https"

    @asynccontextmanager
    async def ask(
        answer: Answer, *, read_timeout: float = 10.0
    ) -> AsyncIterator[tuple[Response, Server, UpstreamClient]]:
        ca: tuple[Path, ...] = (issued.ca,) if tls else ()
        async with (
            serving(answer, tls=issued.leaf if tls else None) as server,
            client(read_timeout=read_timeout) as http,
        ):
            url = f"{request.param}://registry.test:{server.port}/"
            async with http.open("GET", url, Headers(), ca=ca) as response:
                yield response, server, http

    return ask


async def collected(response: Response, between: Callable[[], Awaitable[object]] | None = None) -> bytes:
    out = bytearray()
    async for piece in response.bulk():
        out += piece
        if between is not None:
            await between()
    return bytes(out)


async def broken(response: Response) -> tuple[bytes, BrokenBody]:
    out = bytearray()
    with pytest.raises(BrokenBody) as caught:
        async for piece in response.bulk():
            out += piece
    assert caught.value.received == response.received == len(out)
    return bytes(out), caught.value


async def test_it_arrives_whole(asked: Asked) -> None:
    async with asked(sends(ok(BODY))) as (response, *_):
        assert await collected(response) == BODY
        assert response.received == len(BODY)


async def test_a_slow_reader_loses_nothing(asked: Asked) -> None:
    async with asked(sends(ok(BODY))) as (response, *_):
        assert await collected(response, lambda: asyncio.sleep(0.01)) == BODY


async def test_what_has_come_before_is_part_of_it(asked: Asked) -> None:
    """aiohttp has read some of it, has even stopped reading, when we take over."""
    async with asked(sends(ok(BODY))) as (response, *_):
        content = response._raw.content
        while not content._protocol._reading_paused:
            await asyncio.sleep(0.001)
        assert await collected(response) == BODY


async def test_memory_is_used_again(asked: Asked) -> None:
    """A piece is valid until the next is asked for: whoever keeps one has to copy it."""
    async with asked(sends(ok(BODY))) as (response, *_):
        buffers = [id(piece.obj) async for piece in response.bulk() if isinstance(piece, memoryview)]
    assert len(buffers) >= len(BODY) // PIECE - 1
    assert len(set(buffers)) == 1


async def test_many_at_once_do_not_share_memory(issued: Issued) -> None:
    bodies = [os.urandom(3 << 20) for _ in range(6)]

    async def answer(request: Request) -> None:
        request.send(ok(bodies[int(request.line.split("/")[1].split(" ")[0])]))

    async with serving(answer, tls=issued.leaf) as server, client() as http:

        async def one(n: int) -> bytes:
            url = f"https://registry.test:{server.port}/{n}"
            async with http.open("GET", url, Headers(), ca=(issued.ca,)) as response:
                return await collected(response, lambda: asyncio.sleep(0))

        assert await asyncio.gather(*(one(n) for n in range(6))) == bodies


async def test_bytes_beyond_the_length_never_reach_the_body(asked: Asked) -> None:
    async with asked(sends(head(200, length=len(BODY) - 9), BODY)) as (response, *_):
        assert await collected(response) == BODY[:-9]


async def test_the_connection_is_not_used_again(issued: Issued) -> None:
    async with serving(sends(ok(BODY)), tls=issued.leaf) as server, client() as http:
        for _ in range(2):
            async with http.open(
                "GET", f"https://registry.test:{server.port}/", Headers(), ca=(issued.ca,)
            ) as response:
                assert await collected(response) == BODY
    assert server.connections == 2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_a_cut_body(asked: Asked, share: float) -> None:
    sent = BODY[: min(int(len(BODY) * share), len(BODY) - 1)]

    async def answer(request: Request) -> None:
        request.send(head(200, length=len(BODY)), sent)
        await request.writer.drain()
        request.writer.close()

    async with asked(answer) as (response, *_):
        body, error = await broken(response)
    assert body == sent
    assert "ended short" in str(error) or "cut" in str(error)


async def test_a_reset_body(asked: Asked) -> None:
    async def answer(request: Request) -> None:
        request.send(head(200, length=len(BODY)), BODY[: PIECE * 2])
        await request.writer.drain()
        request.reset()

    async with asked(answer) as (response, *_):
        body, _ = await broken(response)
    assert BODY.startswith(body)


async def test_a_stalled_body(asked: Asked) -> None:
    async def answer(request: Request) -> None:
        request.send(head(200, length=len(BODY)), BODY[:PIECE])
        await request.reader.read()

    async with asked(answer, read_timeout=0.2) as (response, *_):
        body, error = await broken(response)
    assert body == BODY[:PIECE]
    assert str(error).endswith("stalled")


async def test_a_stall_of_ours_is_none_of_theirs(asked: Asked) -> None:
    async with asked(sends(ok(BODY)), read_timeout=0.05) as (response, *_):
        body = bytearray()
        async for piece in response.bulk():
            body += piece
            await asyncio.sleep(0.1)
    assert body == BODY


async def test_cancelling_is_no_broken_body(asked: Asked) -> None:
    begun = asyncio.Event()

    async def answer(request: Request) -> None:
        request.send(head(200, length=len(BODY)), BODY[:PIECE])
        await request.reader.read()

    async def consume(response: Response) -> None:
        async for _ in response.bulk():
            begun.set()

    async with asked(answer) as (response, server, _):
        task = asyncio.ensure_future(consume(response))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert server.connections == 1


async def test_closing_the_client_breaks_the_body(asked: Asked) -> None:
    async def answer(request: Request) -> None:
        request.send(head(200, length=len(BODY)), BODY[:PIECE])
        await request.reader.read()

    async with asked(answer) as (response, _, http):
        pieces = response.bulk()
        while response.received < PIECE:
            await anext(pieces)
        await http.aclose()
        with pytest.raises(BrokenBody):
            await anext(pieces)


@pytest.mark.parametrize("size", [0, 1, MIN_BULK - 1, MIN_BULK, MIN_BULK + 1])
async def test_short_ones_too(asked: Asked, size: int) -> None:
    async with asked(sends(ok(BODY[:size]))) as (response, *_):
        assert await collected(response) == BODY[:size]


async def test_one_without_a_length(asked: Asked) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:70_000], BODY[70_000:]))
    async with asked(sends(head(200, "Transfer-Encoding: chunked"), chunks, b"0\r\n\r\n")) as (response, *_):
        assert await collected(response) == BODY
