"""Challenges answered in the box's name and in nobody's, over the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.engine.test_engine import Clock
from tests.engine.test_secretfiles import auth, config
from tests.fakes.guarded import GuardedRegistry, guarded

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.conduct import Conduct
from entrepot.engine.credentials import SHUNNED
from entrepot.engine.messages import InNameOf, PullRequest
from entrepot.engine.passes import MARGIN, SHUT, NoPass, Passes
from entrepot.engine.upstreams import Upstreams
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.credentials import Credentials, DockerConfig, PasswordFile
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.errors import UpstreamError
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Quotas
from entrepot.upstream.resolver import Resolver

PLACE = "org/app"


@dataclass
class Bench:
    registry: GuardedRegistry
    upstreams: Upstreams
    clock: Clock
    folder: Path
    known: Registry = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / "password"
        path.write_text("box-password")
        path.chmod(0o600)
        self.configure(PasswordFile("box", path))

    def configure(self, place: Credentials) -> None:
        entry = RegistryOverride("registry.test", upstream=self.registry.url, credentials=place)
        self.known = Catalogue([]).with_overrides([entry]).registries()[0]
        self.passes.reload()

    @property
    def passes(self) -> Passes:
        return self.upstreams.passes

    def request(self, asks: InNameOf = "box", repository: str = PLACE) -> PullRequest:
        headers = Headers([("Authorization", "Bearer of-a-client"), ("Accept", "*/*"), ("User-Agent", "docker/27")])
        route = ManifestRoute(repository, "1", query="ns=x&token=of-a-client")
        return PullRequest("GET", self.known, route, headers, "192.0.2.1", asks=asks)

    async def ask(self, asks: InNameOf = "box", repository: str = PLACE) -> int:
        async with self.upstreams.exchange(self.request(asks, repository), "GET", follow=False) as response:
            await response.read(1 << 20)
            return response.status

    def log(self) -> list[str]:
        """What was asked since the last call, and whether with a credential."""
        found = [f"{seen}{' +' if seen.authorized else ''}" for seen in self.registry.seen]
        self.registry.forget()
        return [line.replace(f"/v2/{PLACE}/manifests/1", "it") for line in found]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with guarded() as registry:
        for name in (PLACE, "org/other", "org/closed"):
            registry.push_manifest(name, b"{}", tag="1")
        registry.readers = {PLACE: {"box"}, "org/other": {"box"}, "org/closed": {"ann"}}
        clock = Clock()
        settings = ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0)
        client = UpstreamClient(settings, Resolver([], lambda: (), clock=clock))
        records = MemoryRecords(clock)
        upstreams = Upstreams(
            client, Health(records, client.probe, clock), Quotas(), Bandwidth(), Conduct(records), clock
        )
        yield Bench(registry, upstreams, clock, tmp_path)
        await upstreams.health.close()
        await client.aclose()


async def test_a_challenge_is_answered_with_a_token(bench: Bench) -> None:
    assert await bench.ask() == 200
    assert bench.log() == ["GET it", "GET /token +", "GET it +"]
    (form,) = bench.registry.forms
    assert form == {"service": ["guarded"], "scope": [f"repository:{PLACE}:pull"]}


async def test_nothing_of_the_client_goes_along(bench: Bench) -> None:
    await bench.ask()
    for seen in bench.registry.seen:
        assert "of-a-client" not in repr(seen)
        assert seen.headers.get("User-Agent") == "docker/27"


async def test_a_token_is_for_one_repository_and_used_until_shortly_before_its_end(bench: Bench) -> None:
    await bench.ask()
    bench.log()
    bench.clock.now += 300 * (1 - MARGIN) - 1
    assert await bench.ask() == 200
    assert bench.log() == ["GET it +"]
    assert await bench.ask(repository="org/other") == 200
    assert len(bench.log()) == 3
    bench.clock.now += 1
    assert await bench.ask() == 200
    assert bench.log() == ["GET it", "GET /token +", "GET it +"]


async def test_one_that_has_ended_before_is_replaced(bench: Bench) -> None:
    await bench.ask()
    bench.registry.revoke("box")
    bench.log()
    assert await bench.ask() == 200
    assert bench.log() == ["GET it +", "GET /token +", "GET it +"]


async def test_nobody_has_a_token_of_his_own(bench: Bench) -> None:
    bench.registry.readers[PLACE] = {""}
    assert await bench.ask("nobody") == 200
    assert bench.log() == ["GET it", "GET /token", "GET it +"]
    await bench.ask("box")
    assert [seen.count("+") for seen in bench.log()] == [0, 1, 1]


async def test_basic_goes_directly(bench: Bench) -> None:
    bench.registry.basic = True
    assert await bench.ask() == 200
    assert bench.log() == ["GET it", "GET it +"]
    bench.clock.now += 3600
    assert await bench.ask(repository="org/other") == 200
    assert bench.log() == ["GET /v2/org/other/manifests/1 +"]
    assert await bench.ask("nobody") == 401
    assert bench.log() == ["GET it"]


async def test_a_wrong_password_is_shown_once(bench: Bench) -> None:
    """Accounts get locked."""
    bench.registry.basic = True
    bench.registry.accounts["box"] = "changed"
    assert [await bench.ask(), await bench.ask(), await bench.ask(repository="org/other")] == [401] * 3
    assert [line.count("+") for line in bench.log()] == [0, 1, 0, 0]
    bench.registry.accounts["box"] = "box-password"
    bench.clock.now += SHUNNED
    assert await bench.ask() == 200


async def test_a_wrong_password_is_shown_once_to_a_token_service(bench: Bench) -> None:
    bench.registry.accounts["box"] = "changed"
    assert [await bench.ask(), await bench.ask(), await bench.ask(repository="org/other")] == [401] * 3
    assert [line for line in bench.log() if "token" in line] == ["GET /token +"]
    (bench.folder / "password").write_text("changed")
    bench.passes.reload()
    assert await bench.ask() == 200


async def test_an_identity_token_is_posted(bench: Bench) -> None:
    bench.registry.identity_tokens["long"] = "box"
    bench.configure(DockerConfig(config(bench.folder, auths={"registry.test": {"identitytoken": "long"}})))
    assert await bench.ask() == 200
    assert bench.log() == ["GET it", "POST /token", "GET it +"]
    assert bench.registry.forms == [
        {
            "grant_type": ["refresh_token"],
            "client_id": ["entrepot"],
            "refresh_token": ["long"],
            "service": ["guarded"],
            "scope": [f"repository:{PLACE}:pull"],
        }
    ]


async def test_an_identity_token_is_no_password(bench: Bench) -> None:
    bench.registry.basic = True
    bench.configure(DockerConfig(config(bench.folder, auths={"registry.test": {"identitytoken": "long"}})))
    assert await bench.ask() == 401
    assert bench.log() == ["GET it"]


async def test_what_the_account_may_not_read(bench: Bench) -> None:
    """Is asked for once in a while only; and the password is not to blame."""
    assert await bench.ask(repository="org/closed") == 401
    assert len(bench.log()) == 3
    assert await bench.ask(repository="org/closed") == 401
    assert bench.log() == ["GET /v2/org/closed/manifests/1"]
    assert not await bench.passes.usable(bench.request(repository="org/closed"), "box")
    assert await bench.ask() == 200
    bench.log()
    bench.clock.now += SHUT
    await bench.ask(repository="org/closed")
    assert len(bench.log()) == 3


async def test_a_token_service_in_trouble(bench: Bench) -> None:
    bench.registry.token_status = 503
    with pytest.raises(NoPass, match=r"gives no token \(503\)"):
        await bench.ask()


async def test_a_token_service_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the errand has a way of his own, and is not held up for long."""
    monkeypatch.setattr("entrepot.engine.passes.TOKEN_SECONDS", 0.05)
    bench.registry.token_hold = asyncio.Event()
    with pytest.raises(NoPass, match="no token within"):
        await bench.ask()
    bench.registry.token_hold.set()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_service_that_refuses_nobody(bench: Bench, status: int) -> None:
    bench.registry.token_status = status
    assert await bench.ask("nobody") == 401
    assert bench.log() == ["GET it", "GET /token"]


@pytest.mark.parametrize("realm", ["http://192.0.2.1", "https://169.254.169.254", "ftp://x", "http://[", "file:///etc"])
async def test_a_realm_that_leads_elsewhere_without_https_or_inward(bench: Bench, realm: str) -> None:
    """The password goes nowhere else."""
    bench.registry.realm = realm
    with suppress(NoPass):
        assert await bench.ask() == 401
    assert bench.log() == ["GET it"]


async def test_another_place_without_https_is_not_asked(bench: Bench) -> None:
    """Of this machine, as the registry is, or it would be refused for that."""
    async with guarded() as other:
        bench.registry.realm = other.url
        with pytest.raises(NoPass, match="names a token service without https"):
            await bench.ask()
        assert other.seen == []


async def test_a_challenge_of_where_a_redirect_led_is_not_answered(bench: Bench) -> None:
    """DESIGN rule 2: what is shown to one host is not shown to another."""
    async with guarded() as other:
        target = f"{other.url}/v2/{PLACE}/manifests/1"

        async def lead(repository: str) -> int:
            request = bench.request(repository=repository)
            async with bench.upstreams.exchange(request, "GET", follow=True) as response:
                return response.status

        bench.registry.readers = {}
        bench.registry.redirected = target
        assert await lead(PLACE) == 401
        assert [seen.authorized for seen in other.seen] == [False]
    assert bench.log() == ["GET it"]


async def test_without_a_credential_the_box_is_refused(bench: Bench) -> None:
    (bench.folder / "password").chmod(0o644)
    assert await bench.ask() == 401
    assert bench.log() == ["GET it"]
    assert not await bench.passes.usable(bench.request(), "box")
    assert await bench.passes.usable(bench.request(), "nobody")


async def test_a_proof_is_by_a_new_token(bench: Bench) -> None:
    """An older one may outlive what it was issued for."""
    bench.registry.readers[PLACE] = {""}
    await bench.ask("nobody")
    shown = await bench.passes.known(bench.request("nobody"), "nobody")
    challenge = Headers([("WWW-Authenticate", f'Bearer realm="{bench.registry.url}/token",service="guarded"')])
    for _ in range(2):
        assert await bench.passes.of_nobody(bench.request(), challenge) not in {None, shown}
    assert await bench.passes.known(bench.request("nobody"), "nobody") == shown


async def test_entries_of_a_docker_config(bench: Bench) -> None:
    bench.configure(DockerConfig(config(bench.folder, auths={"registry.test": auth("box:box-password")})))
    assert await bench.ask() == 200


async def test_what_is_said_to_others_is_not_said_to_the_client(bench: Bench) -> None:
    """Whose password a 401 is about is looked up by the client's request."""
    told: list[int] = []

    async def observe(request: PullRequest, status: int, headers: Headers) -> None:
        told.append(status)

    bench.upstreams.observed = observe
    await bench.ask("box")
    await bench.ask("nobody")
    await bench.ask("box", "org/closed")
    assert told == []
    await bench.ask("client")
    assert told == [401]


async def test_the_client_s_own_is_as_it_was(bench: Bench) -> None:
    async with bench.upstreams.exchange(replace(bench.request(), asks="client"), "GET", follow=False) as response:
        assert response.status == 401
    (seen,) = bench.registry.seen
    assert seen.headers["Authorization"] == "Bearer of-a-client"


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        ("https://127.0.0.1/token", "on this machine"),
        ("https://localhost/token", "on this machine"),
        ("https://169.254.169.254/latest", "on this machine or link"),
        ("http://auth.docker.io/token", "without https"),
        ("http://quay.io/token", "without https"),
    ],
)
def test_where_no_password_goes(bench: Bench, realm: str, why: str) -> None:
    quay = Catalogue.builtin().registry("quay.io")
    assert quay is not None
    with pytest.raises(UpstreamError, match=why):
        bench.passes._check(quay, realm)
    bench.passes._check(quay, "https://auth.quay.io/token")
