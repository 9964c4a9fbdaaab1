"""Exchanges with real servers: what is sent, how redirects are followed, how failures are told apart. Rules 2, 11."""

import asyncio
import logging
from pathlib import Path

import pytest
from tests.upstream.loopback import (
    NOWHERE,
    VIA,
    Answer,
    Clock,
    Request,
    client,
    closes_after,
    fixed,
    head,
    issue,
    name_server,
    ok,
    sends,
    serving,
)

from entrepot.headers import Headers
from entrepot.upstream.client import DRAIN_BYTES, ClientSettings, UpstreamClient
from entrepot.upstream.errors import (
    BadRedirect,
    InvalidResponse,
    LoopDetected,
    TimedOut,
    TooManyRedirects,
    Unreachable,
    Untrusted,
    UpstreamError,
)
from entrepot.upstream.resolver import Resolver

BEARER = Headers([("Authorization", "Bearer secret"), ("Cookie", "c=1"), ("Range", "bytes=5-"), ("Accept", "x/y")])
SECRET = "X-Amz-Signature=secret"


NONE = Headers()


async def get(http: UpstreamClient, url: str, headers: Headers = NONE) -> bytes:
    async with http.open("GET", url, headers) as response:
        return await response.read(1 << 20)


async def failure(http: UpstreamClient, url: str, method: str = "GET") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        async with http.open(method, url, Headers()):
            pass
    return caught.value


class TestOpen:
    async def test_what_is_sent(self) -> None:
        async with serving(sends(ok(b"{}"))) as server, client() as http:
            fields = Headers([("Accept", "a"), ("accept", "b"), ("Accept-Encoding", "gzip"), ("Via", "1.1 x")])
            await get(http, f"http://a.test:{server.port}/v2/x%2Fy?n=%41&m", fields)
            request = server.requests[0]
        assert request.line == "GET /v2/x%2Fy?n=%41&m HTTP/1.1"
        assert list(request.headers) == [
            ("Host", f"a.test:{server.port}"),
            ("Accept", "a"),
            ("Accept", "b"),
            ("User-Agent", "entrepot/0"),
            ("Accept-Encoding", "identity"),
            ("Via", f"1.1 x, {VIA}"),
        ]

    async def test_a_body_is_sent_with_its_length(self) -> None:
        bodies: list[bytes] = []

        async def answer(request: Request) -> None:
            bodies.append(await request.reader.readexactly(int(request.headers.get("content-length", "0"))))
            request.send(head(202, length=0))

        async with serving(answer) as server, client() as http:
            fields = Headers([("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "999")])
            async with http.open("post", f"http://a.test:{server.port}/token", fields, body=b"a=b") as response:
                assert response.status == 202
            assert server.lines == ["POST /token HTTP/1.1"]
            assert server.requests[0].headers.get_all("content-type") == ["application/x-www-form-urlencoded"]
        assert bodies == [b"a=b"]

    async def test_a_redirect_is_an_answer(self) -> None:
        async with serving(sends(head(307, "Location: /elsewhere", length=0))) as server, client() as http:
            async with http.open("GET", f"http://a.test:{server.port}/", Headers()) as response:
                assert (response.status, response.headers.get("location")) == (307, "/elsewhere")
                assert not response.redirected
            assert len(server.requests) == 1

    async def test_fields_come_raw_in_order_and_repeated(self) -> None:
        lines = ["X-Up: 1", "x-low: \u00e9", "X-Up: 2"]
        async with (
            serving(sends(head(200, *lines, length=0))) as server,
            client() as http,
            http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
        ):
            assert list(response.headers)[:3] == [("X-Up", "1"), ("x-low", "\u00e9"), ("X-Up", "2")]

    async def test_large_fields_are_taken(self) -> None:
        async with (
            serving(sends(head(200, "X-Token: " + "t" * 40_000, length=0))) as server,
            client() as http,
            http.open("GET", f"http://a.test:{server.port}/", Headers()) as response,
        ):
            assert len(response.headers.get("x-token", "")) == 40_000

    async def test_cookies_are_not_kept(self) -> None:
        async with serving(sends(head(200, "Set-Cookie: a=b", length=0))) as server, client() as http:
            for _ in range(2):
                await get(http, f"http://a.test:{server.port}/")
            assert "cookie" not in server.requests[1].headers

    async def test_a_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{NOWHERE}")
        async with serving(sends(ok(b"direct"))) as server, client() as http:
            assert await get(http, f"http://a.test:{server.port}/") == b"direct"

    async def test_a_line_break_sends_nothing(self) -> None:
        async with serving(sends(ok(b""))) as server, client() as http:
            with pytest.raises(ValueError, match="line break"):
                await get(http, f"http://a.test:{server.port}/", Headers([("X", "a\r\nY: b")]))
            assert server.connections == 0

    async def test_an_address_needs_no_name(self) -> None:
        async with serving(sends(ok(b"x"))) as server, client() as http:
            assert await get(http, f"http://127.0.0.1:{server.port}/") == b"x"
            assert server.requests[0].headers.get("host") == f"127.0.0.1:{server.port}"

    async def test_the_log_shows_no_query(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        async with serving(sends(ok(b"x"))) as server, client() as http:
            await get(http, f"http://a.test:{server.port}/blob?{SECRET}", BEARER)
        assert "/blob: 200" in caplog.text
        assert "secret" not in caplog.text


class TestConnections:
    async def test_a_read_body_leaves_the_connection_for_the_next(self) -> None:
        async with serving(sends(ok(b"x" * 100_000))) as server, client() as http:
            for _ in range(3):
                await get(http, f"http://a.test:{server.port}/")
            assert server.connections == 1

    async def test_a_head_leaves_the_connection_for_the_next(self) -> None:
        async with serving(sends(head(200, length=5))) as server, client() as http:
            for _ in range(2):
                async with http.open("HEAD", f"http://a.test:{server.port}/", Headers()) as response:
                    assert response.content_length == 5
                    assert await response.read(0) == b""
            assert server.connections == 1

    @pytest.mark.parametrize("tls", [False, True])
    async def test_leaving_early_closes_the_connection(self, tmp_path: Path, tls: bool) -> None:
        async def endless(request: Request) -> None:
            request.send(head(200, length=1 << 40))
            while True:
                request.send(bytes(65536))
                await request.writer.drain()
                await asyncio.sleep(0)

        issued = issue(tmp_path, "a")
        async with serving(endless, tls=issued.leaf if tls else None) as server, client() as http:
            url = f"{'https' if tls else 'http'}://registry.test:{server.port}/"
            async with http.open("GET", url, Headers(), ca=(issued.ca,)) as response:
                async for piece in response.chunks():
                    assert piece
                    break
            await server.gone.wait()

    @pytest.mark.parametrize("stage", ["head", "body"])
    async def test_cancelling_closes_the_connection(self, tmp_path: Path, stage: str) -> None:
        reached = asyncio.Event()

        async def answer(request: Request) -> None:
            if stage == "body":
                request.send(head(200, length=10), b"x")
            reached.set()
            await request.reader.read()  # until the client is gone
            server.gone.set()

        issued = issue(tmp_path, "a")
        async with serving(answer, tls=issued.leaf) as server, client() as http:

            async def fetch() -> None:
                async with http.open("GET", f"https://registry.test:{server.port}/", Headers(), ca=(issued.ca,)) as got:
                    await got.read(100)

            task = asyncio.ensure_future(fetch())
            await reached.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.gone.wait()

    async def test_cancelling_the_handshake_closes_the_connection(self) -> None:
        reached, gone = asyncio.Event(), asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.set()
            while await reader.read(4096):
                pass
            gone.set()
            writer.close()

        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with listener, client() as http:
            port = listener.sockets[0].getsockname()[1]
            task = asyncio.ensure_future(get(http, f"https://a.test:{port}/"))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()

    async def test_a_stale_connection_is_replaced_once(self) -> None:
        async def answer(request: Request) -> None:
            if request.count == 1:
                request.writer.close()  # the second request meets a connection that is going away
            else:
                request.send(ok(b"x"))

        async with serving(answer) as server, client() as http:
            for _ in range(2):
                assert await get(http, f"http://a.test:{server.port}/") == b"x"
            assert server.connections == 2
            assert len(server.requests) == 3

    async def test_a_post_is_not_sent_again(self) -> None:
        async with serving(closes_after()) as server, client() as http:
            error = await failure(http, f"http://a.test:{server.port}/", "POST")
            assert isinstance(error, Unreachable)
            assert len(server.requests) == 1

    async def test_a_get_is_sent_twice_at_most(self) -> None:
        async with serving(closes_after()) as server, client() as http:
            assert isinstance(await failure(http, f"http://a.test:{server.port}/"), Unreachable)
            assert len(server.requests) == 2

    async def test_connections_to_one_host_are_bounded(self) -> None:
        waiting, release = asyncio.Event(), asyncio.Event()

        async def answer(request: Request) -> None:
            waiting.set()
            await release.wait()
            request.send(ok(b"x"))

        async with serving(answer) as server, client(per_host=2) as http:
            tasks = [asyncio.ensure_future(get(http, f"http://a.test:{server.port}/")) for _ in range(5)]
            await waiting.wait()
            release.set()
            assert await asyncio.gather(*tasks) == [b"x"] * 5
            assert server.connections == 2

    async def test_closing_ends_what_is_open_and_may_be_repeated(self) -> None:
        async with serving(sends(head(200, length=10), b"x")) as server, client() as http:
            async with http.open("GET", f"http://a.test:{server.port}/", Headers()):
                await http.aclose()
                await server.gone.wait()
            await http.aclose()

    async def test_the_second_address_is_tried(self) -> None:
        resolver = Resolver([], list, clock=Clock(), hosts={"two.test": ["::1", "127.0.0.1"]})
        async with serving(sends(ok(b"x"))) as server, client(resolver) as http:
            assert await get(http, f"http://two.test:{server.port}/") == b"x"


class TestTls:
    async def test_a_registrys_own_ca_is_trusted_for_it_alone(self, tmp_path: Path) -> None:
        a, b = issue(tmp_path, "a"), issue(tmp_path, "b")
        async with serving(sends(ok(b"x")), tls=a.leaf) as server, client() as http:
            url = f"https://registry.test:{server.port}/"
            async with http.open("GET", url, Headers(), ca=(a.ca,)) as response:
                assert await response.read(10) == b"x"
            for ca in ((), (b.ca,)):  # also right after a good connection: pools do not mix
                with pytest.raises(Untrusted, match="certificate not trusted"):
                    async with http.open("GET", url, Headers(), ca=ca):
                        pass

    async def test_the_name_must_match(self, tmp_path: Path) -> None:
        issued = issue(tmp_path, "a", name="registry.test")
        async with serving(sends(ok(b"x")), tls=issued.leaf) as server, client() as http:
            with pytest.raises(Untrusted, match="certificate not trusted: hostname mismatch"):
                async with http.open("GET", f"https://a.test:{server.port}/", Headers(), ca=(issued.ca,)):
                    pass

    async def test_a_sloppy_private_ca_works_as_it_does_for_clients(self, tmp_path: Path) -> None:
        issued = issue(tmp_path, "a", sloppy=True)
        async with (
            serving(sends(ok(b"x")), tls=issued.leaf) as server,
            client() as http,
            http.open("GET", f"https://registry.test:{server.port}/", Headers(), ca=(issued.ca,)) as response,
        ):
            assert response.status == 200

    async def test_an_unreadable_ca_says_which(self, tmp_path: Path) -> None:
        async with client() as http:
            with pytest.raises(Untrusted, match=r"missing\.pem"):
                async with http.open("GET", "https://registry.test/", Headers(), ca=(tmp_path / "missing.pem",)):
                    pass

    async def test_plain_http_on_a_tls_port(self) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with listener, client() as http:
            error = await failure(http, f"https://a.test:{listener.sockets[0].getsockname()[1]}/")
        assert isinstance(error, Unreachable)
        assert not isinstance(error, Untrusted)
        assert "cannot connect: tls: " in str(error)


class TestFailures:
    async def test_a_refused_connection(self) -> None:
        async with client() as http:
            error = await failure(http, f"http://a.test:{NOWHERE}/x?{SECRET}")
        assert isinstance(error, Unreachable)
        assert str(error) == f"a.test:{NOWHERE}: cannot connect: connection refused"

    async def test_two_refused_connections(self) -> None:
        resolver = Resolver([], list, clock=Clock(), hosts={"two.test": ["::1", "127.0.0.1"]})
        async with client(resolver) as http:
            error = await failure(http, f"http://two.test:{NOWHERE}/")
        assert isinstance(error, Unreachable)
        assert "connection refused" in str(error)

    async def test_a_name_without_address(self) -> None:
        async with client(fixed()) as http:
            error = await failure(http, "http://a.test/")
        assert isinstance(error, Unreachable)
        assert "no name server answers" in str(error)

    async def test_our_own_address(self) -> None:
        async with name_server(a_test=["600 A 192.0.2.1"]) as zone:
            resolver = Resolver([("127.0.0.1", zone.port)], lambda: ["192.0.2.1"], clock=Clock())
            async with client(resolver) as http:
                assert isinstance(await failure(http, "http://a.test/"), LoopDetected)

    async def test_a_reset_before_the_answer(self) -> None:
        async def answer(request: Request) -> None:
            request.reset()

        async with serving(answer) as server, client() as http:
            error = await failure(http, f"http://a.test:{server.port}/?{SECRET}")
        assert isinstance(error, Unreachable)
        assert "connection lost before the answer: connection reset by peer" in str(error)

    async def test_closed_before_the_answer(self) -> None:
        async with serving(closes_after()) as server, client() as http:
            error = await failure(http, f"http://a.test:{server.port}/")
        assert isinstance(error, Unreachable)
        assert "closed the connection before it answered" in str(error)

    async def test_silence_before_the_answer(self) -> None:
        async def answer(request: Request) -> None:
            await request.reader.read()

        async with serving(answer) as server, client(read_timeout=0.05) as http:
            error = await failure(http, f"http://a.test:{server.port}/?{SECRET}")
        assert isinstance(error, TimedOut)
        assert "no answer in time" in str(error)

    async def test_silence_in_the_handshake(self) -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                pass
            writer.close()

        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with listener, client(connect_timeout=0.05) as http:
            error = await failure(http, f"https://a.test:{listener.sockets[0].getsockname()[1]}/?{SECRET}")
        assert isinstance(error, TimedOut)
        assert "no connection in time" in str(error)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"SSH-2.0-OpenSSH_9\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            head(200, "Content-Length: 3", "Content-Length: 4"),
            head(200, "Content-Length: -1"),
            head(200, "X-Long: " + "x" * 70_000),
        ],
    )
    async def test_what_is_not_http(self, garbage: bytes) -> None:
        async with serving(closes_after(garbage)) as server, client() as http:
            assert isinstance(await failure(http, f"http://a.test:{server.port}/"), InvalidResponse)

    @pytest.mark.parametrize(
        "url", ["ftp://a.test/x", "http:///x", "x", "http://[::1/", "http://a.test:x/", "http://a/ b"]
    )
    async def test_what_is_not_an_http_url(self, url: str) -> None:
        async with client() as http:
            error = await failure(http, f"{url}?{SECRET}")
        assert "not a usable http url" in str(error)
        assert "secret" not in str(error)

    async def test_credentials_in_a_url_are_not_sent(self) -> None:
        async with serving(sends(ok(b""))) as server, client() as http:
            error = await failure(http, f"http://user:secret@a.test:{server.port}/")
            assert server.connections == 0
        assert str(error) == f"a.test:{server.port}: credentials in the url are not sent: configure them apart"

    @pytest.mark.parametrize(
        "answer", [closes_after(), sends(b"\0\r\n\r\n"), sends(head(302, "Location: ftp://x", length=0))]
    )
    async def test_no_text_or_cause_holds_a_secret(self, answer: Answer) -> None:
        async with serving(answer) as server, client() as http:
            with pytest.raises(UpstreamError) as caught:
                async with http.follow("GET", f"http://a.test:{server.port}/x?{SECRET}", BEARER):
                    pass
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


class TestFollow:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_every_kind_is_followed_with_the_same_method(self, status: int, method: str) -> None:
        async def answer(request: Request) -> None:
            if request.count == 0:
                request.send(head(status, "Location: /there?s=1", length=0))
            else:
                request.send(head(200, length=2), b"ok" if method == "GET" else b"")

        async with serving(answer) as server, client() as http:
            async with http.follow(method, f"http://a.test:{server.port}/here", BEARER) as response:
                assert response.status == 200
                assert response.url == f"http://a.test:{server.port}/there?s=1"
                assert response.redirected
                assert response.content_length == 2
            assert server.lines == [f"{method} /here HTTP/1.1", f"{method} /there?s=1 HTTP/1.1"]

    async def test_no_redirect_is_no_redirect(self) -> None:
        async with (
            serving(sends(ok(b"x"))) as server,
            client() as http,
            http.follow("GET", f"http://a.test:{server.port}/x", Headers()) as response,
        ):
            assert await response.read(10) == b"x"
            assert not response.redirected

    @pytest.mark.parametrize("status", [200, 206, 300, 304, 401, 404, 429, 503])
    async def test_other_answers_are_given_as_they_are(self, status: int) -> None:
        async with (
            serving(sends(head(status, "Location: /x", length=0))) as server,
            client() as http,
            http.follow("GET", f"http://a.test:{server.port}/", Headers()) as response,
        ):
            assert response.status == status

    async def test_credentials_do_not_go_to_another_host_nor_back(self) -> None:
        async def registry(request: Request) -> None:
            if request.count == 0:
                request.send(head(307, f"Location: http://b.test:{cdn.port}/cdn", length=0))
            else:
                request.send(ok(b"done"))

        async def storage(request: Request) -> None:
            request.send(head(302, f"Location: http://a.test:{home.port}/back", length=0))

        async with serving(registry) as home, serving(storage) as cdn, client() as http:
            async with http.follow("GET", f"http://a.test:{home.port}/", BEARER) as response:
                assert await response.read(10) == b"done"
            first, back = home.requests
            away = cdn.requests[0]
        assert first.headers.get("authorization") == "Bearer secret"
        for request in (away, back):
            assert "authorization" not in request.headers
            assert "cookie" not in request.headers
            assert request.headers.get("range") == "bytes=5-"
            assert request.headers.get("accept") == "x/y"
            assert request.headers.get("via") == VIA
        assert away.headers.get("host") == f"b.test:{cdn.port}"

    async def test_credentials_do_not_go_to_another_port(self) -> None:
        async with serving(sends(ok(b"x"))) as other:
            moved = sends(head(307, f"Location: http://a.test:{other.port}/", length=0))
            async with (
                serving(moved) as server,
                client() as http,
                http.follow("GET", f"http://a.test:{server.port}/", BEARER),
            ):
                pass
            assert "authorization" not in other.requests[0].headers

    async def test_credentials_stay_on_the_way_through_the_same_host(self) -> None:
        async def answer(request: Request) -> None:
            request.send(ok(b"x") if request.count else head(302, "Location: /artifacts-downloads/x", length=0))

        async with serving(answer) as server, client() as http:
            async with http.follow("GET", f"http://a.test:{server.port}/", BEARER):
                pass
            assert server.requests[1].headers.get("authorization") == "Bearer secret"

    async def test_the_connection_survives_a_redirect_with_a_small_body(self) -> None:
        async def answer(request: Request) -> None:
            if request.count == 0:
                request.send(head(307, "Location: /x", length=DRAIN_BYTES), bytes(DRAIN_BYTES))
            else:
                request.send(ok(b"x"))

        async with serving(answer) as server, client() as http:
            async with http.follow("GET", f"http://a.test:{server.port}/", Headers()):
                pass
            assert server.connections == 1

    @pytest.mark.parametrize(
        "odd",
        [
            head(307, "Location: /x", length=1 << 40) + b"endless",
            head(307, "Location: /x", "Transfer-Encoding: chunked") + b"5\r\nhello",
            head(307, "Location: /x", "Content-Encoding: gzip", length=3) + b"abc",
            head(307, "Location: /x"),
        ],
    )
    async def test_a_redirect_with_an_odd_body_is_followed_all_the_same(self, odd: bytes) -> None:
        async def answer(request: Request) -> None:
            request.send(ok(b"x") if request.count else odd)

        async with (
            serving(answer) as server,
            client() as http,
            http.follow("GET", f"http://a.test:{server.port}/", Headers()) as response,
        ):
            assert await response.read(10) == b"x"

    async def test_a_circle_ends(self) -> None:
        async with serving(sends(head(302, "Location: /again", length=0))) as server, client() as http:
            with pytest.raises(TooManyRedirects, match="more than 3 redirects"):
                async with http.follow("GET", f"http://a.test:{server.port}/", Headers(), max_redirects=3):
                    pass
            assert len(server.requests) == 4

    async def test_just_as_many_as_allowed(self) -> None:
        async def answer(request: Request) -> None:
            request.send(ok(b"x") if request.count == 2 else head(302, "Location: /again", length=0))

        async with (
            serving(answer) as server,
            client() as http,
            http.follow("GET", f"http://a.test:{server.port}/", Headers(), max_redirects=2) as response,
        ):
            assert response.status == 200

    async def test_a_redirect_without_target(self) -> None:
        async with serving(sends(head(302, length=0))) as server, client() as http:
            with pytest.raises(BadRedirect, match="without a location"):
                async with http.follow("GET", f"http://a.test:{server.port}/", Headers()):
                    pass

    async def test_https_is_not_stepped_down(self, tmp_path: Path) -> None:
        issued = issue(tmp_path, "a")
        async with serving(sends(ok(b"x"))) as plain:
            down = sends(head(307, f"Location: http://a.test:{plain.port}/", length=0))
            async with serving(down, tls=issued.leaf) as server, client() as http:
                url = f"https://registry.test:{server.port}/"
                with pytest.raises(BadRedirect, match="down to http"):
                    async with http.follow("GET", url, Headers(), ca=(issued.ca,)):
                        pass
            assert plain.connections == 0

    async def test_the_registrys_ca_counts_for_its_storage_too(self, tmp_path: Path) -> None:
        issued = issue(tmp_path, "a")
        async with serving(sends(ok(b"x")), tls=issued.leaf) as storage:
            there = sends(head(307, f"Location: https://registry.test:{storage.port}/", length=0))
            async with (
                serving(there) as server,
                client() as http,
                http.follow("GET", f"http://a.test:{server.port}/", Headers(), ca=(issued.ca,)) as response,
            ):
                assert await response.read(10) == b"x"

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    async def test_other_methods_are_not_followed(self, method: str) -> None:
        async with serving(sends(ok(b"x"))) as server, client() as http:
            with pytest.raises(ValueError, match="only GET and HEAD"):
                async with http.follow(method, f"http://a.test:{server.port}/", Headers()):
                    pass
            assert server.connections == 0

    @pytest.mark.parametrize(
        ("target", "kind"),
        [
            ("http://192.0.2.1/", LoopDetected),
            ("http://[::ffff:192.0.2.1]/", LoopDetected),
            ("http://0.0.0.0/", LoopDetected),
            ("http://127.0.0.1/", BadRedirect),
            ("http://[::1]/", BadRedirect),
            ("http://localhost/", BadRedirect),
            ("http://169.254.169.254/latest/meta-data", BadRedirect),
        ],
    )
    async def test_a_redirect_inwards_is_refused(self, target: str, kind: type[UpstreamError]) -> None:
        async with serving(sends(head(302, f"Location: {target}", length=0))) as server, client() as http:
            with pytest.raises(kind):
                async with http.follow("GET", f"http://a.test:{server.port}/", Headers()):
                    pass

    async def test_a_registry_on_this_machine_may_redirect_on_this_machine(self) -> None:
        async with serving(sends(ok(b"x"))) as storage:
            there = sends(head(302, f"Location: http://localhost:{storage.port}/", length=0))
            async with (
                serving(there) as server,
                client() as http,
                http.follow("GET", f"http://127.0.0.1:{server.port}/", Headers()) as response,
            ):
                assert await response.read(10) == b"x"

    async def test_a_failure_after_a_redirect_names_the_host_that_failed(self) -> None:
        gone = sends(head(307, f"Location: http://b.test:{NOWHERE}/?{SECRET}", length=0))
        async with serving(gone) as server, client() as http:
            with pytest.raises(Unreachable) as caught:
                async with http.follow("GET", f"http://a.test:{server.port}/", Headers()):
                    pass
        assert caught.value.host == f"b.test:{NOWHERE}"


def test_a_client_can_be_made_before_there_is_a_loop() -> None:
    settings = ClientSettings(connect_timeout=1, read_timeout=1, via=VIA, user_agent=None, per_host=0)
    asyncio.run(UpstreamClient(settings, fixed()).aclose())
