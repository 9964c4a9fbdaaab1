"""What is not a pull: streamed both ways, to the real host, in upstream's words."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from tests.addons.conftest import NAME, POLICY, Box

from entrepot.certs.authority import Authority
from entrepot.certs.leaves import LeafIssuer
from entrepot.registry.catalogue import Catalogue, RegistryOverride

PIECE = b"x" * 100_000


@asynccontextmanager
async def upstream(handler: web.RequestHandler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = web.ServerRunner(web.Server(handler), shutdown_timeout=0)  # type: ignore[arg-type]
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"http://127.0.0.1:{server.addresses[0][1]}"
    finally:
        await server.cleanup()


def point(box: Box, url: str) -> None:
    catalogue = Catalogue([]).with_overrides([RegistryOverride(NAME, upstream=url)])
    box.worker.reconfigure(catalogue, POLICY)


async def test_a_push_is_streamed_to_upstream(box: Box) -> None:
    """The first bytes arrive while the client still holds the rest back."""
    arrived, seen = asyncio.Event(), bytearray()

    async def take(request: web.BaseRequest) -> web.Response:
        async for piece in request.content.iter_any():
            seen.extend(piece)
            if len(seen) >= len(PIECE):
                arrived.set()
        return web.Response(status=202, headers={"Location": f"https://{NAME}/v2/org/app/blobs/uploads/1?_state=a%3D"})

    async with upstream(take) as url:  # type: ignore[arg-type]
        point(box, url)
        client = await box.connect()
        client.ask("PATCH", "/v2/org/app/blobs/uploads/1?_state=b", "Transfer-Encoding: chunked")
        client.writer.write(b"%x\r\n" % len(PIECE) + PIECE + b"\r\n")
        await asyncio.wait_for(arrived.wait(), 5)
        client.writer.write(b"%x\r\n" % len(PIECE) + PIECE + b"\r\n0\r\n\r\n")
        reply = await client.reply()
        assert reply.status == 202
        assert reply.headers["location"] == f"https://{NAME}/v2/org/app/blobs/uploads/1?_state=a%3D"
        assert bytes(seen) == PIECE * 2


async def test_an_answer_is_streamed_to_the_client(box: Box) -> None:
    go_on = asyncio.Event()

    async def give(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PIECE)
        await go_on.wait()
        await response.write(PIECE)
        return response

    async with upstream(give) as url:  # type: ignore[arg-type]
        point(box, url)
        client = await box.connect()
        client.ask("GET", "/page")
        await client.reader.readuntil(b"\r\n\r\n")
        got = b""
        while len(got) < len(PIECE):
            got += await asyncio.wait_for(client.reader.read(1 << 20), 5)
        go_on.set()


async def test_expectations_are_met(box: Box) -> None:
    async def take(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read())

    async with upstream(take) as url:  # type: ignore[arg-type]
        point(box, url)
        client = await box.connect()
        client.ask("PUT", "/v2/org/app/manifests/1", "Content-Length: 3", "Expect: 100-continue")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client.writer.write(b"abc")
        assert (await client.reply()).body == b"abc"


async def test_upstream_sees_the_request_as_it_was_and_our_mark(box: Box) -> None:
    seen: list[web.BaseRequest] = []

    async def note(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.Response(text="ok")

    async with upstream(note) as url:  # type: ignore[arg-type]
        point(box, url)
        client = await box.connect()
        await client.get("/v1/search?q=a%2Fb", "Authorization: Basic abc", "X-Custom: 1", "Via: 1.0 lan")
    (request,) = seen
    assert request.raw_path == "/v1/search?q=a%2Fb"
    assert request.headers["Host"] == NAME
    assert request.headers["Authorization"] == "Basic abc"
    assert request.headers["X-Custom"] == "1"
    assert ", ".join(request.headers.getall("Via")) == "1.0 lan, 1.1 entrepot-test"
    assert not {"X-Forwarded-For", "Forwarded"} & set(request.headers)


@pytest.mark.parametrize("target", ["/page", "/v2/"])
async def test_an_upstream_that_is_not_there(box: Box, target: str) -> None:
    point(box, "http://127.0.0.1:1")
    client = await box.connect()
    reply = await client.get(target)
    assert (reply.status, reply.headers["content-type"]) == (502, "application/json")
    assert json.loads(reply.body)["errors"][0]["message"].startswith("entrepot: ")
    assert "server" not in reply.headers


async def test_an_answer_that_breaks_off_ends_without_a_goodbye(box: Box) -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 2 * len(PIECE)
        await response.prepare(request)
        await response.write(PIECE)
        assert request.transport is not None
        request.transport.close()
        return response

    async with upstream(cut) as url:  # type: ignore[arg-type]
        point(box, url)
        client = await box.connect()
        client.ask("GET", "/page")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.reply()


async def test_a_name_that_does_not_resolve(box: Box) -> None:
    point(box, "https://nowhere.invalid")
    client = await box.connect()
    assert (await client.get("/page")).status == 502


async def test_a_certificate_that_is_not_trusted(box: Box, tmp_path: Path) -> None:
    asked = []

    async def note(request: web.BaseRequest) -> web.Response:
        asked.append(request)
        return web.Response()

    leaf = LeafIssuer(Authority.load(box.worker.settings.certs), days=7, clock=lambda: datetime.now(UTC)).issue(NAME)
    (tmp_path / "leaf.pem").write_bytes(leaf.chain_pem + leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")
    async with upstream(note, context) as url:  # type: ignore[arg-type]
        point(box, url.replace("http:", "https:"))
        for target in ("/page", "/v2/"):
            client = await box.connect()
            assert (await client.get(target)).status == 502
    assert asked == []
