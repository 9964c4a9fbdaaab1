"""Requests as they come over the wire: which are answered here, how connections go on and end."""

import asyncio
import json

import mitmproxy.ctx
import pytest
from tests.addons.conftest import NAME, Box
from tests.fakes.registry import Fault

from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest

ACCEPT = f"Accept: {mediatypes.OCI_INDEX}"


async def test_a_pull_on_one_connection(box: Box) -> None:
    client = await box.connect()
    manifest = await client.get(box.manifest(), ACCEPT)
    assert (manifest.status, Digest.of(manifest.body)) == (200, box.image.index)
    assert manifest.headers["content-type"] == mediatypes.OCI_INDEX
    assert manifest.headers["docker-distribution-api-version"] == "registry/2.0"
    for digest in (box.image.config, *box.image.layers):
        blob = await client.get(box.blob(digest))
        assert (blob.status, Digest.of(blob.body)) == (200, digest)
        assert blob.headers["connection"] == "keep-alive"
    box.registry.forget()
    again = await client.get(box.blob(box.image.layers[1]))
    assert again.headers["cache-status"] == "entrepot; hit"
    assert Digest.of(again.body) == box.image.layers[1]
    assert box.registry.requests() == []


async def test_head_has_the_fields_of_get_and_no_body(box: Box) -> None:
    client = await box.connect()
    got = await client.get(box.blob(box.image.layers[1]))
    client.ask("HEAD", box.blob(box.image.layers[1]))
    head = await client.reply(head_only=True)
    ignored = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    } | {"cache-status": "entrepot; hit"}
    assert (await client.get("/v2/")).status == 200  # nothing was left over


async def test_requests_sent_ahead_are_answered_in_order(box: Box) -> None:
    client = await box.connect()
    for digest in box.image.layers * 3:
        client.ask("GET", box.blob(digest))
    for digest in box.image.layers * 3:
        assert Digest.of((await client.reply()).body) == digest


async def test_a_head_in_single_bytes(box: Box) -> None:
    client = await box.connect()
    for byte in f"GET /v2/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode():
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    assert (await client.reply()).status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_close_means_close_with_a_goodbye(box: Box, version: str) -> None:
    """docker asks so for every request."""
    client = await box.connect()
    client.send(f"GET /v2/ HTTP/{version}\nHost: {NAME}\nConnection: close\n\n")
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.reader.read() == b""


async def test_other_paths_pass_through_and_pulls_go_on_after_them(box: Box) -> None:
    client = await box.connect()
    page = await client.get("/repository/x")
    assert (page.status, page.body) == (404, b"no such page")
    assert (await client.get(box.manifest(), ACCEPT)).status == 200
    assert (await client.get("/token?scope=a")).status == 404
    box.registry.forget()
    assert (await client.get(box.manifest(), ACCEPT)).headers["cache-status"] == "entrepot; hit"
    assert box.registry.requests() == []


async def test_a_host_that_is_not_the_name_of_the_handshake(box: Box) -> None:
    """RFC 9110 15.5.20, for pulls and for what passes through."""
    client = await box.connect()
    for target in ("/v2/", box.manifest(), "/page"):
        client.ask("GET", target, host="quay.io")
        reply = await client.reply()
        assert reply.status == 421, target
        assert NAME in json.loads(reply.body)["errors"][0]["message"]
    client.ask("PUT", "/page", "Content-Length: 2", host="quay.io")
    client.writer.write(b"ab")
    assert (await client.reply()).status == 421
    assert box.registry.requests() == []
    client.ask("GET", "/v2/", host=f"{NAME.upper()}:443")
    assert (await client.reply()).status == 200


@pytest.mark.parametrize("target", ["https://quay.io/v2/", "https://quay.io/page", "http://127.0.0.1/"])
async def test_an_absolute_target_that_is_not_the_name_of_the_handshake(box: Box, target: str) -> None:
    client = await box.connect()
    client.ask("GET", target)
    assert (await client.reply()).status == 421
    assert box.registry.requests() == []
    assert (await client.get(f"https://{NAME}/page")).body == b"no such page"


async def test_two_hosts_are_one_too_many(box: Box) -> None:
    client = await box.connect()
    client.ask("GET", "/v2/", f"Host: {NAME}")
    assert (await client.reply()).status in {400, 421}
    assert box.registry.requests() == []


@pytest.mark.parametrize("target", ["/v2/", "/page"])
async def test_our_own_request_is_a_loop(box: Box, target: str) -> None:
    client = await box.connect()
    reply = await client.get(target, "Via: 1.1 other, 1.1 Entrepot-Test (hello)")
    assert reply.status == 508
    assert box.registry.requests() == []


@pytest.mark.parametrize(
    "head",
    [
        "GET /v2/ HTTP/1.1\nHost: registry.test\nTransfer-Encoding: chunked\nContent-Length: 5\n\n",
        "GET /v2/ HTTP/1.1\nHost : registry.test\n\n",
        "GET /v2/ HTTP/1.1\nHost: registry.test\nContent-Length: 1\nContent-Length: 2\n\n",
        "GET /v2/\x01 HTTP/1.1\nHost: registry.test\n\n",
        "nonsense\n\n",
    ],
)
async def test_malformed_requests_never_reach_upstream(box: Box, head: str) -> None:
    client = await box.connect()
    client.send(head)
    reply = await asyncio.wait_for(client.reader.read(), 5)
    assert reply.startswith(b"HTTP/1.1 4") or reply == b""
    assert box.registry.requests() == []


async def test_bodies_are_streamed_from_upstream_before_they_end(box: Box) -> None:
    go_on = asyncio.Event()
    layer = box.image.layers[1]
    box.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
    client = await box.connect()
    client.ask("GET", box.blob(layer))
    await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.readexactly(4999) == b"b" * 4999
    go_on.set()
    assert await client.reader.readexactly(65_001) == b"b" * 65_001


async def test_a_client_that_leaves_disturbs_nobody(box: Box) -> None:
    go_on = asyncio.Event()
    layer = box.image.layers[1]
    box.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
    one, other = await box.connect(), await box.connect()
    one.ask("GET", box.blob(layer))
    await one.reader.readuntil(b"\r\n\r\n")
    other.ask("GET", box.blob(layer))
    await other.reader.readuntil(b"\r\n\r\n")
    one.writer.transport.abort()
    go_on.set()
    assert await other.reader.readexactly(70_000) == b"b" * 70_000
    assert len([seen for seen in box.registry.requests("/blobs/") if seen.startswith("GET")]) == 1


async def test_a_client_that_leaves_before_the_answer_is_no_error_of_ours(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()
    box.registry.faults.append(Fault("/manifests/1", hold=go_on))
    client = await box.connect()
    client.ask("GET", box.manifest(), ACCEPT)
    await box.registry.arrived("/manifests/1")
    caplog.set_level("INFO", "entrepot.access")
    (server,) = mitmproxy.ctx.master.addons.get("proxyserver").servers
    (front,) = server.fronts
    front.end()  # as a time limit does, or the end of the time to drain
    while server.fronts:
        await asyncio.sleep(0)
    go_on.set()
    while "client gone before the answer" not in caplog.text:
        await asyncio.sleep(0)
    assert "Traceback" not in caplog.text
    assert "Addon error" not in caplog.text


async def test_a_body_with_a_wrong_byte_ends_short_without_a_goodbye(box: Box) -> None:
    """DESIGN rules 1 and 2: never a clean end, never a reset."""
    layer = box.image.layers[1]
    box.registry.faults.append(Fault(str(layer), flip_at=69_000))
    client = await box.connect()
    client.ask("GET", box.blob(layer))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: 70000" in head
    body = await client.reader.read(1 << 20)
    while piece := await client.reader.read(1 << 20):
        body += piece
    assert len(body) == 69_999


async def test_the_log_names_no_credential(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT, "Authorization: Bearer s3cr3t-token")
    await client.get("/token?password=s3cr3t-password", "Authorization: Basic s3cr3t-basic")
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("entrepot", "mitmproxy")))
    assert "path=/v2/org/app/manifests/1 registry=registry.test repository=org/app tag=1 digest=sha256:" in ours
    assert "status=200 verdict=miss admitted=checked upstream=1 bytes=304 first_ms=" in ours
    assert "path=/token status=404 verdict=through" in ours
    assert "s3cr3t" not in ours


async def test_counters(box: Box) -> None:
    client = await box.connect()
    for _ in range(2):
        await client.get(box.blob(box.image.layers[1]))
        # What came from upstream is counted when it is committed, and a hit when it is known who may have it.
        while settling := [one for one in asyncio.all_tasks() if one.get_name().startswith(("transfer", "admit"))]:
            await asyncio.wait(settling)
    await client.get("/page")
    box.worker.counters.flush()
    counts = json.loads((box.store / "run" / "proxy-0.json").read_text())
    assert counts["requests"] == 3
    assert (counts["requests_hit"], counts["requests_miss"], counts["requests_through"]) == (1, 1, 1)
    assert counts["bytes_hit"] == counts["bytes_upstream"] == 70_000
