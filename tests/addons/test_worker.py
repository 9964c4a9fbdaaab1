"""The life of a worker: reload and drain."""

import asyncio
import json
from dataclasses import replace

from tests.addons.conftest import POLICY, Box
from tests.fakes.registry import Fault, Quota

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


async def test_what_upstream_says_of_the_quota_is_among_the_counters(box: Box) -> None:
    """DESIGN rule 6; never whose it is."""
    box.registry.quota = Quota(limit=100, spent=23)
    client = await box.connect()
    assert (await client.get(box.manifest(), "Authorization: Bearer good")).status == 200
    box.worker.flush()
    text = (box.store / "run" / "proxy-0.json").read_text()
    counts = json.loads(text)
    assert (counts["quota_registry.test_limit"], counts["quota_registry.test_remaining"]) == (100, 76)
    assert counts["requests"] == 1
    assert "good" not in text
    assert box.registry.quota.source not in text


async def test_a_reload_changes_the_bandwidth_of_what_is_under_way(box: Box) -> None:
    """At one byte a second the blob would not be there today."""
    catalogue = box.worker.pulls.catalogue
    box.worker.reconfigure(catalogue, replace(POLICY, bandwidth=1))
    client = await box.connect()
    client.ask("GET", box.blob(box.image.layers[1]))
    await client.reader.readuntil(b"\r\n\r\n")
    box.worker.reconfigure(catalogue, POLICY)
    assert await client.reader.readexactly(70_000) == b"b" * 70_000
