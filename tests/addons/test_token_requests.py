"""Requests to token services as they come over the wire: answered here, with the forms that belong to them."""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from aiohttp import web
from tests.addons.conftest import NAME, POLICY, Box
from tests.addons.test_passthrough import upstream
from tests.fakes.tokens import FakeTokens, basic, token_service

from entrepot.addons.http1 import MAX_FORM
from entrepot.engine.owntokens import PREFIX
from entrepot.registry.catalogue import Catalogue, RegistryOverride

FIELD = "Content-Type: application/x-www-form-urlencoded"
PULL = "/token?service=s&scope=repository:org/app:pull"
FORM = urlencode(
    {"grant_type": "password", "service": "s", "username": "ann", "password": "anns-password", "client_id": "c"}
).encode()


@pytest.fixture
async def service(box: Box) -> AsyncIterator[FakeTokens]:
    """The token service is what the box's registry is."""
    async with token_service(FakeTokens(box.registry)) as tokens:
        catalogue = Catalogue([]).with_overrides([RegistryOverride(NAME, upstream=tokens.url)])
        box.worker.reconfigure(catalogue, POLICY)
        yield tokens


async def test_a_token_is_asked_for_and_a_pull_goes_on(box: Box, service: FakeTokens) -> None:
    client = await box.connect()
    for field in (": ".join(basic("ann", "anns-password")), "Accept: */*"):
        reply = await client.get(PULL, field)
        assert reply.status == 200
        assert json.loads(reply.body)["token"] in service.issued
        assert reply.headers["x-served-by"] == "tokens"
    assert [*service.issued.values()] == ["ann", ""]
    assert [asked.target for asked in service.seen] == [PULL, PULL]


async def test_a_form_in_single_bytes_and_the_next_request_behind_it(box: Box, service: FakeTokens) -> None:
    client = await box.connect()
    client.ask("POST", "/v2/auth", FIELD, f"Content-Length: {len(FORM)}")
    for byte in FORM:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    assert (await client.reply()).status == 200
    client.ask("POST", "/v2/auth", FIELD, f"Content-Length: {len(FORM)}")
    client.writer.write(FORM)
    client.ask("GET", PULL)
    assert (await client.reply()).status == (await client.reply()).status == 200
    assert [*service.issued.values()] == ["ann", "ann", ""]
    assert [(asked.method, asked.target, bool(asked.form)) for asked in service.seen] == [
        ("POST", "/v2/auth", True),
        ("POST", "/v2/auth", True),
        ("GET", PULL, False),
    ]


async def test_a_client_that_leaves_in_the_middle_of_a_form(box: Box, service: FakeTokens) -> None:
    client = await box.connect()
    client.ask("POST", "/v2/auth", FIELD, f"Content-Length: {len(FORM)}")
    client.writer.write(FORM[:10])
    await client.close()
    other = await box.connect()
    assert (await other.get(PULL)).status == 200
    assert len(service.seen) == 1


async def test_an_empty_form(box: Box, service: FakeTokens) -> None:
    client = await box.connect()
    client.ask("POST", "/token", FIELD, "Content-Length: 0")
    assert (await client.reply()).status == 200
    assert (await client.get(PULL)).status == 200


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ((FIELD, f"Content-Length: {MAX_FORM + 1}"), b"a" * (MAX_FORM + 1)),
        ((FIELD, "Transfer-Encoding: chunked"), b"1\r\na\r\n0\r\n\r\n"),
        (("Content-Type: application/json", "Content-Length: 2"), b"{}"),
        ((FIELD, "Content-Length: 3", "Cookie: _gitlab_session=1"), b"a=b"),
    ],
)
async def test_what_no_client_of_a_registry_sends_passes_through(
    box: Box, fields: tuple[str, ...], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "entrepot.access")
    client = await box.connect()
    client.ask("POST", "/oauth/token", *fields)
    client.writer.write(body)
    assert (await client.reply()).status == 404
    assert "path=/oauth/token status=404 verdict=through" in caplog.text
    assert (await client.get("/v2/")).status == 200


async def test_pages_of_people_with_a_browser_pass_through(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "entrepot.access")
    client = await box.connect()
    await client.get("/users/auth?scope=all", "Cookie: _gitlab_session=1")
    await client.get("/token")
    assert caplog.text.count("verdict=through") == 2
    await client.get("/users/auth?scope=all")
    assert caplog.text.count("verdict=refused") == 1


async def test_a_form_for_another_host(box: Box) -> None:
    client = await box.connect()
    client.ask("POST", "/token", FIELD, "Content-Length: 3", host="quay.io")
    client.writer.write(b"a=b")
    assert (await client.reply()).status == 421
    assert box.registry.requests() == []


async def test_our_own_request_is_a_loop(box: Box) -> None:
    client = await box.connect()
    assert (await client.get(PULL, "Via: 1.1 entrepot-test")).status == 508
    assert box.registry.requests() == []


async def test_a_token_of_ours_in_an_outage_and_that_it_stays_here(box: Box) -> None:
    client = await box.connect()
    seen: list[str | None] = []

    async def note(request: object) -> object:
        assert isinstance(request, web.BaseRequest)
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=503) if request.path == "/token" else web.json_response({})

    async with upstream(note) as url:  # type: ignore[arg-type]
        box.worker.reconfigure(Catalogue([]).with_overrides([RegistryOverride(NAME, upstream=url)]), POLICY)
        reply = await client.get(PULL)
        token = json.loads(reply.body)["token"]
        assert token.startswith(PREFIX)
        assert (reply.status, reply.headers["x-entrepot"]) == (200, "stale")
        seen.clear()
        for target in ("/v2/", "/v2/_catalog", "/page", "/v2/org/app/manifests/1"):
            await client.get(target, f"Authorization: Bearer {token}")
        client.ask("PUT", "/v2/org/app/manifests/1", f"Authorization: Bearer {token}", "Content-Length: 0")
        await client.reply()
        assert len(seen) >= 5
        assert set(seen) == {None}
        await client.get("/page", "Authorization: Bearer other")
        assert seen[-1] == "Bearer other"


async def test_the_log_names_no_credential(box: Box, service: FakeTokens, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = await box.connect()
    service.users["s3cr3t-user"] = "s3cr3t-password"
    form = urlencode(
        {"grant_type": "password", "service": "s", "username": "s3cr3t-user", "password": "s3cr3t-password"}
    )
    client.ask("POST", "/token", FIELD, f"Content-Length: {len(form)}")
    client.writer.write(form.encode())
    token = json.loads((await client.reply()).body)["token"]
    await client.get("/token?service=s&password=s3cr3t-query", f"Authorization: Bearer {token}")
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("entrepot", "mitmproxy")))
    assert "method=POST host=registry.test path=/token registry=registry.test repository=- status=200" in ours
    assert "s3cr3t" not in ours
    assert token not in ours
    held = b"".join(
        path.read_bytes() for path in await asyncio.to_thread(lambda: [*box.store.rglob("*")]) if path.is_file()
    )
    assert b"s3cr3t" not in held
    assert token.encode() not in held
