"""Bodies as they come: whole, cut, stalled, short, encoded, too long. Rules 1 and 2."""

import asyncio

import pytest
from tests.upstream.loopback import Answer, Request, client, closes_after, head, ok, sends, serving

from entrepot.headers import Headers
from entrepot.upstream.errors import BrokenBody, InvalidResponse, TooLarge
from entrepot.upstream.response import Response

CHUNKED = head(200, "Transfer-Encoding: chunked")


async def broken(answer: Answer, *, read_timeout: float = 10.0) -> tuple[bytes, BrokenBody]:
    """What was handed out before the body broke, and how it broke: while iterating, not at the call."""
    pieces: list[bytes] = []
    async with (
        serving(answer) as server,
        client(read_timeout=read_timeout) as http,
        http.open("GET", f"http://a.test:{server.port}/?sig=secret", Headers()) as response,
    ):
        assert response.status == 200
        with pytest.raises(BrokenBody) as caught:
            async for piece in response.chunks():
                pieces.append(piece)
        assert response.received == caught.value.received
    assert caught.value.received == len(b"".join(pieces))
    assert caught.value.host == f"a.test:{server.port}"
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
    return b"".join(pieces), caught.value


async def whole(answer: Answer, *, method: str = "GET", size_hint: int = 1 << 20) -> list[bytes]:
    async with (
        serving(answer) as server,
        client() as http,
        http.open(method, f"http://a.test:{server.port}/", Headers()) as response,
    ):
        return [piece async for piece in response.chunks(size_hint)]


def given_away(pieces: asyncio.Queue[bytes]) -> Answer:
    """Sends what it is told, when it is told; an empty piece ends the connection."""

    async def answer(request: Request) -> None:
        while piece := await pieces.get():
            request.send(piece)
            await request.writer.drain()
        request.writer.close()

    return answer


async def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000
    assert b"".join(await whole(sends(ok(body)))) == body


async def test_pieces_come_as_they_arrive() -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    async with serving(given_away(pieces)) as server, client() as http:
        pieces.put_nowait(head(200, length=4))
        async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
            body = response.chunks()
            for piece in (b"ab", b"cd"):
                pieces.put_nowait(piece)
                assert await anext(body) == piece
            with pytest.raises(StopAsyncIteration):
                await anext(body)
        pieces.put_nowait(b"")


async def test_pieces_are_no_larger_than_asked() -> None:
    pieces = await whole(sends(ok(b"x" * 100_000)), size_hint=1000)
    assert b"".join(pieces) == b"x" * 100_000
    assert max(map(len, pieces)) <= 1000
    assert min(map(len, pieces)) > 0


async def test_a_chunked_body() -> None:
    assert b"".join(await whole(sends(CHUNKED, b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"))) == b"abcde"


async def test_a_body_up_to_the_end_of_the_connection() -> None:
    assert b"".join(await whole(closes_after(head(200), b"abc"))) == b"abc"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answers_without_a_body_are_not_short(method: str, status: int) -> None:
    assert await whole(sends(head(status, length=0 if status == 204 else 7)), method=method) == []


async def test_bytes_beyond_the_length_never_reach_the_body() -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    async with serving(given_away(pieces)) as server, client() as http:
        pieces.put_nowait(head(200, length=3))
        async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
            pieces.put_nowait(b"abcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert await response.read(100) == b"abc"
        pieces.put_nowait(b"")
        pieces.put_nowait(head(200, length=1) + b"x")
        async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
            assert await response.read(100) == b"x"  # on another connection: that one could not be trusted
        pieces.put_nowait(b"")
        assert server.connections == 2


async def test_a_slow_reader_loses_nothing() -> None:
    body = b"x" * 3_000_000
    async with (
        serving(sends(ok(body))) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        received = 0
        async for piece in response.chunks():
            received += len(piece)
            for _ in range(3):
                await asyncio.sleep(0)
    assert received == len(body)


@pytest.mark.parametrize("size", [100_000, 600_000, 3_000_000])
async def test_a_server_that_closes_long_before_we_have_read(size: int) -> None:
    """As object stores do; some aiohttp 3.14 called such a body short (aio-libs/aiohttp#13348)."""
    whole_body = closes_after(head(200, "Connection: close", length=size), b"x" * size)
    async with (
        serving(whole_body) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        received = 0
        async for piece in response.chunks():
            received += len(piece)
            await asyncio.sleep(0.001)  # slower than the server, which is what it takes
    assert received == size


async def test_a_cut_body() -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    for piece in (head(200, length=9), b"short", b""):
        pieces.put_nowait(piece)
    body, error = await broken(given_away(pieces))
    assert b"short".startswith(body)
    assert "cut" in str(error)


async def test_a_cut_chunked_body() -> None:
    _, error = await broken(closes_after(CHUNKED, b"5\r\nhello\r\n5\r\nwor"))
    assert "cut" in str(error)


async def test_a_garbled_chunked_body() -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    async with serving(given_away(pieces)) as server, client(read_timeout=0.05) as http:
        pieces.put_nowait(CHUNKED)
        async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
            body = response.chunks()
            pieces.put_nowait(b"5\r\nhello\r\n")
            assert await anext(body) == b"hello"
            pieces.put_nowait(b"zz\r\nworld")  # aiohttp 3.14 leaves its reader waiting for ever
            with pytest.raises(BrokenBody) as caught:
                await anext(body)
            assert caught.value.received == 5
        pieces.put_nowait(b"")


async def test_a_reset_body() -> None:
    async def answer(request: Request) -> None:
        request.send(head(200, length=1 << 20), b"some")
        await request.writer.drain()
        request.reset()

    body, _ = await broken(answer)
    assert b"some".startswith(body)


async def test_a_stalled_body() -> None:
    async def answer(request: Request) -> None:
        request.send(head(200, length=9), b"short")
        await request.reader.read()

    body, error = await broken(answer, read_timeout=0.1)
    assert body == b"short"
    assert str(error).endswith("body broke after 5 bytes: stalled")


async def test_cancelling_a_read_is_no_broken_body() -> None:
    begun = asyncio.Event()

    async def consume(response: Response) -> None:
        async for _ in response.chunks():
            begun.set()

    async with serving(sends(head(200, length=9), b"x")) as server, client() as http:
        async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
            task = asyncio.ensure_future(consume(response))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await server.gone.wait()


async def test_closing_the_client_breaks_the_body() -> None:
    async with (
        serving(sends(head(200, length=9), b"x")) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        body = response.chunks()
        assert await anext(body) == b"x"
        await http.aclose()
        with pytest.raises(BrokenBody):
            await anext(body)


async def test_read_takes_up_to_the_limit() -> None:
    async with (
        serving(sends(ok(b"abc"))) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        assert await response.read(3) == b"abc"


@pytest.mark.parametrize("answer", [sends(ok(b"abcd")), sends(CHUNKED, b"4\r\nabcd\r\n0\r\n\r\n")])
async def test_read_refuses_more(answer: Answer) -> None:
    async with (
        serving(answer) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        with pytest.raises(TooLarge, match=r"4 bytes where 3|more than 3 bytes"):
            await response.read(3)


async def test_read_raises_for_a_cut_body() -> None:
    async with (
        serving(closes_after(head(200, length=9), b"short")) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        with pytest.raises(BrokenBody):
            await response.read(100)


@pytest.mark.parametrize(
    ("values", "encoding"),
    [([], None), (["identity"], None), (["GZIP"], "gzip"), (["identity", "zstd"], "zstd"), ([""], None)],
)
async def test_encoding_despite_identity_is_flagged_and_not_undone(values: list[str], encoding: str | None) -> None:
    fields = [f"Content-Encoding: {value}" for value in values]
    async with (
        serving(sends(ok(b"\x1f\x8braw", *fields))) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        assert response.encoding == encoding
        assert b"".join([piece async for piece in response.chunks()]) == b"\x1f\x8braw"


async def test_an_encoded_text_is_refused() -> None:
    async with (
        serving(sends(ok(b"\x1f\x8braw", "Content-Encoding: gzip"))) as server,
        client() as http,
        http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        with pytest.raises(InvalidResponse, match="'gzip' although asked for identity"):
            await response.read(100)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (["Content-Length: 7"], 7),
        (["content-length: 7"], 7),
        (["Content-Length: 0"], 0),
        ([], None),
        (["Transfer-Encoding: chunked"], None),
    ],
)
async def test_the_length_an_answer_claims(lines: list[str], length: int | None) -> None:
    async with (
        serving(sends(head(200, *lines))) as server,
        client() as http,
        http.open("HEAD", f"http://a.test:{server.port}/", Headers()) as response,
    ):
        assert response.content_length == length
