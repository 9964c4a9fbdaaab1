"""Connections before mitmproxy has them: what a client that behaves oddly can cost, and how they end."""

import asyncio

import mitmproxy.ctx
from tests.addons.conftest import NAME, Box, Client
from tests.addons.test_pull import ACCEPT

from entrepot.addons.front import AHEAD, HANDSHAKE_SECONDS, IDLE_SECONDS, Front
from entrepot.addons.mode import RegistryServer


def fronts() -> list[Front]:
    (server,) = mitmproxy.ctx.master.addons.get("proxyserver").servers
    assert isinstance(server, RegistryServer)
    return list(server.fronts)


async def the_front() -> Front:
    while not fronts():
        await asyncio.sleep(0)
    (front,) = fronts()
    return front


async def test_a_client_that_asks_and_does_not_read_is_not_read_either(box: Box) -> None:
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT)
    layer = box.blob(box.image.layers[1])
    await client.get(layer)
    front = await the_front()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = f"GET {layer} HTTP/1.1\nHost: {NAME}\nX-Padding: {'x' * 2000}\n\n"
    sent = 0
    while front.transport.is_reading():
        client.send(request)
        sent += 1
        await asyncio.sleep(0)
    assert len(front._buffer) < AHEAD + (1 << 20)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(sent):
        assert len((await client.reply()).body) == 70_000


async def test_nothing_happens_for_too_long(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    front = await the_front()
    now = asyncio.get_running_loop().time()
    assert not front.overdue(now + HANDSHAKE_SECONDS - 1)
    assert front.overdue(now + HANDSHAKE_SECONDS + 1)
    front.end()
    assert await reader.read() == b""
    writer.close()
    while fronts():
        await asyncio.sleep(0)
    client = await box.connect()
    front = await the_front()
    assert (await client.get("/v2/")).status == 200
    now = asyncio.get_running_loop().time()
    assert not front.overdue(now + IDLE_SECONDS - 1)
    assert front.overdue(now + IDLE_SECONDS + 1)
    front.end()
    assert await client.reader.read() == b""  # with a goodbye: else this raises
    assert client.writer.is_closing() or client.reader.at_eof()


async def test_a_connection_under_way_is_never_overdue(box: Box) -> None:
    client = await box.connect()
    front = await the_front()
    front.busy = True
    assert not front.overdue(asyncio.get_running_loop().time() + 10 * IDLE_SECONDS)
    front.busy = False
    assert (await client.get("/v2/")).status == 200


async def test_who_leaves_is_forgotten(box: Box) -> None:
    for _ in range(3):
        client = await box.connect()
        assert (await client.get("/v2/")).status == 200
        await client.close()
    while fronts():
        await asyncio.sleep(0)


async def test_what_is_passed_on_is_no_front_any_more(box: Box) -> None:
    client = await box.connect()
    assert (await client.get("/v2/")).status == 200
    assert len(fronts()) == 1
    assert (await client.get("/elsewhere")).status == 404
    assert fronts() == []
    assert len(mitmproxy.ctx.master.addons.get("proxyserver").connections) == 1
    assert (await client.get(box.manifest(), ACCEPT)).status == 200  # and still pulls


async def test_requests_that_come_with_the_one_that_is_passed_on(box: Box) -> None:
    client = await box.connect()
    client.ask("GET", "/elsewhere")
    client.ask("GET", box.manifest(), ACCEPT)
    assert [(await client.reply()).status for _ in range(2)] == [404, 200]


async def test_a_goodbye_is_answered(box: Box) -> None:
    client: Client = await box.connect()
    assert (await client.get("/v2/")).status == 200
    await client.close()
    assert client.clean
