"""What the client tells of its exchanges, and what it does when it is told not to."""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.upstream.loopback import NOWHERE, Request, client, closes_after, head, issue, ok, sends, serving

from entrepot.cache.memory import MemoryRecords
from entrepot.headers import Headers
from entrepot.tasks import spawn
from entrepot.upstream.errors import Down, TimedOut, Unreachable, Untrusted, UpstreamError
from entrepot.upstream.health import Health

BEARER = Headers([("Authorization", "Bearer secret")])


@dataclass
class Notes:
    """A watch that writes down what it is told."""

    told: list[object] = field(default_factory=list)
    down: str = ""  # part of the URLs that are not to be asked

    def begin(self, url: str, ca: tuple[Path, ...], *, insist: bool) -> "Notes":
        self.told.append(url.rpartition("/")[2])
        if self.down and self.down in url and not insist:
            raise Down("a.test", "not asked")
        return self

    async def returned(self, url: str) -> bool:
        self.told.append("looks")
        return not self.down

    def answered(self, status: int, headers: Headers) -> None:
        self.told.append((status, headers.get("retry-after")))

    def failed(self, error: UpstreamError) -> None:
        self.told.append(type(error))

    def dropped(self) -> None:
        self.told.append("dropped")


async def test_an_answer() -> None:
    notes = Notes()
    async with serving(sends(head(503, "Retry-After: 7", length=0))) as server, client() as http:
        http.watched_by(notes)
        async with http.open("GET", f"http://a.test:{server.port}/x", Headers()):
            assert notes.told == ["x", (503, "7")]
    assert notes.told == ["x", (503, "7")]


async def test_each_hop_of_a_redirect_by_itself() -> None:
    notes = Notes()
    async with serving(sends(ok(b"x"))) as storage:
        there = sends(head(307, f"Location: http://b.test:{storage.port}/y", length=0))
        async with serving(there) as server, client() as http:
            http.watched_by(notes)
            async with http.follow("GET", f"http://a.test:{server.port}/x", Headers()):
                pass
    assert notes.told == ["x", (307, None), "y", (200, None)]


async def test_failures() -> None:
    notes = Notes()
    async with serving(closes_after()) as server, client() as http:
        http.watched_by(notes)
        for port in (NOWHERE, server.port):
            with pytest.raises(Unreachable):
                async with http.open("POST", f"http://a.test:{port}/x", Headers(), body=b""):
                    pass
        with pytest.raises(Unreachable):
            async with http.open("GET", "http://no-such-name.test/x", Headers()):
                pass
    assert notes.told == ["x", Unreachable] * 3


async def test_whoever_asks_may_leave() -> None:
    notes = Notes()
    arrived = asyncio.Event()

    async def never(request: Request) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(never) as server, client() as http:
        http.watched_by(notes)

        async def ask() -> None:
            async with http.open("GET", f"http://a.test:{server.port}/x", Headers()):
                pass

        asking = spawn(ask(), name="ask")
        await asyncio.wait_for(arrived.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert notes.told == ["x", "dropped"]


async def test_what_happens_to_the_body_is_no_news() -> None:
    notes = Notes()
    async with serving(closes_after(head(200, length=100), b"short")) as server, client() as http:
        http.watched_by(notes)
        with pytest.raises(UpstreamError):
            async with http.open("GET", f"http://a.test:{server.port}/x", Headers()) as response:
                await response.read(1000)
    assert notes.told == ["x", (200, None)]


async def test_what_is_down_is_not_asked_unless_one_insists() -> None:
    notes = Notes(down="a.test")
    async with serving(sends(ok(b"x"))) as server, client() as http:
        http.watched_by(notes)
        url = f"http://a.test:{server.port}/x"
        with pytest.raises(Down):
            async with http.open("GET", url, Headers()):
                pass
        with pytest.raises(Down):
            async with http.follow("GET", url, Headers()):
                pass
        assert server.connections == 0
        async with http.open("GET", url, Headers(), insist=True):
            pass
        async with http.follow("GET", url, Headers(), insist=True):
            pass
    assert len(server.requests) == 2


class TestProbe:
    async def test_it_is_a_get_without_any_credential_over_a_connection_of_its_own(self) -> None:
        """An idle connection says nothing of whether a new one can be made."""
        notes = Notes(down="/v2/")
        async with serving(sends(head(401, length=0))) as server, client() as http:
            http.watched_by(notes)
            url = f"http://a.test:{server.port}"
            async with http.open("GET", f"{url}/x", BEARER) as response:
                await response.read(10)
            for number in range(2):
                assert await http.probe(f"{url}/v2/") == 401
                assert server.connections == 2 + number
            async with http.open("GET", f"{url}/x", BEARER):
                pass
            assert server.connections == 3
        assert "/v2/" not in str(notes.told)  # no news of itself
        probe = server.requests[1]
        assert probe.line == "GET /v2/ HTTP/1.1"
        assert "authorization" not in probe.headers
        assert probe.headers.get("via") == server.requests[0].headers.get("via")

    async def test_it_trusts_what_the_registry_is_trusted_by(self, tmp_path: Path) -> None:
        issued = issue(tmp_path, "a")
        async with serving(sends(head(200, length=0)), tls=issued.leaf) as server, client() as http:
            url = f"https://registry.test:{server.port}/v2/"
            assert await http.probe(url, (issued.ca,)) == 200
            with pytest.raises(Untrusted):
                await http.probe(url)

    async def test_it_does_not_wait_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("entrepot.upstream.client.PROBE_ANSWER", 0.05)

        async def never(request: Request) -> None:
            await asyncio.Event().wait()

        async with serving(never) as server, client() as http:
            with pytest.raises(TimedOut):
                await http.probe(f"http://a.test:{server.port}/")

    async def test_nor_for_a_name_with_many_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("entrepot.upstream.client.PROBE_ANSWER", -1.9)  # of 2 s in all, 0.1 s are left

        async def never(request: Request) -> None:
            await asyncio.Event().wait()

        async with serving(never) as server, client() as http:
            with pytest.raises(TimedOut, match="no answer in time"):
                await http.probe(f"http://a.test:{server.port}/")


async def test_what_outlives_the_client_opens_nothing() -> None:
    notes = Notes()
    async with serving(sends(ok(b"x"))) as server, client() as http:
        http.watched_by(notes)
        await http.aclose()
        url = f"http://a.test:{server.port}/x"
        with pytest.raises(UpstreamError, match="shutting down"):
            async with http.open("GET", url, Headers()):
                pass
        with pytest.raises(UpstreamError, match="shutting down"):
            await http.probe(url)
        assert server.connections == 0
    assert notes.told == []


async def test_nor_does_what_was_about_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading what is trusted takes a moment."""
    async with client() as http:
        read = http._trust.context

        async def context(ca: tuple[Path, ...], *, host: str) -> ssl.SSLContext:
            found = await read(ca, host=host)
            await http.aclose()
            return found

        monkeypatch.setattr(http._trust, "context", context)
        with pytest.raises(UpstreamError, match="shutting down"):
            async with http.open("GET", f"https://a.test:{NOWHERE}/x", Headers()):
                pass
        assert http._session is None


async def test_together_a_host_that_is_gone_is_asked_only_until_it_is_known() -> None:
    """Real connections and real probes."""
    async with client() as http:
        health = Health(MemoryRecords(), http.probe)
        http.watched_by(health)
        async with serving(sends(head(401, length=0))) as server:
            url = f"http://a.test:{server.port}"
            async with http.open("GET", f"{url}/v2/", Headers()):
                pass
            assert not health.is_down(url)
        with pytest.raises(Unreachable, match="cannot connect"):
            async with http.open("GET", f"{url}/v2/", Headers()):
                pass
        assert health.is_down(url)
        for _ in range(500):  # until the probe has come back
            if health.is_out(url):
                break
            await asyncio.sleep(0.01)
        with pytest.raises(Down, match="connection refused"):
            async with http.open("GET", f"{url}/v2/", Headers()):
                pass
        await health.close()
