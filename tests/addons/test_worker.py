"""The life of a worker: reload and drain."""

import asyncio

from tests.addons.conftest import POLICY, Box
from tests.fakes.registry import Fault

from entrepot.registry.catalogue import Catalogue, RegistryOverride


async def test_a_reload_touches_nothing_that_is_under_way(box: Box) -> None:
    go_on = asyncio.Event()
    layer = box.image.layers[1]
    box.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
    client = await box.connect()
    client.ask("GET", box.blob(layer))
    await client.reader.readuntil(b"\r\n\r\n")
    box.worker.reconfigure(Catalogue([]).with_overrides([RegistryOverride("other.test")]), POLICY)
    go_on.set()
    assert await client.reader.readexactly(70_000) == b"b" * 70_000
    assert (await client.get("/v2/")).status == 421  # the name is not ours any more


async def test_draining_finishes_what_is_under_way_and_takes_nothing_new(box: Box) -> None:
    go_on = asyncio.Event()
    layer = box.image.layers[1]
    box.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
    busy, idle = await box.connect(), await box.connect()
    assert (await idle.get("/v2/")).status == 200
    busy.ask("GET", box.blob(layer))
    await busy.reader.readuntil(b"\r\n\r\n")
    box.stop.set()
    assert await asyncio.wait_for(idle.reader.read(), 5) == b""
    go_on.set()
    assert await busy.reader.readexactly(70_000) == b"b" * 70_000
    assert await asyncio.wait_for(busy.reader.read(), 5) == b""
    await asyncio.wait_for(box.serving, 5)


async def test_what_a_client_has_got_is_held_when_the_worker_ends(box: Box) -> None:
    client = await box.connect()
    await client.get(box.blob(box.image.layers[1]))
    box.stop.set()
    await asyncio.wait_for(box.serving, 5)
    (blob,) = (box.store / "blobs" / "sha256").glob("*/*")
    assert blob.read_bytes() == b"b" * 70_000
    assert list((box.store / "incoming").iterdir()) == []
