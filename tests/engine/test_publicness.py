"""Anonymous looks at repositories, over the wire to a registry with a token service."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.fakes.registry import FakeRegistry, Fault, running

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.conduct import Conduct
from entrepot.engine.messages import PullRequest
from entrepot.engine.passes import token_address
from entrepot.engine.publicness import Publicness
from entrepot.engine.upstreams import Upstreams
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.challenges import parse_challenges
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Quotas
from entrepot.upstream.resolver import Resolver

ROUTE = ManifestRoute("org/app", "1")


@dataclass
class Bench:
    registry: FakeRegistry
    publicness: Publicness

    async def look(self) -> bool | None:
        found = Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream=self.registry.url)])
        headers = Headers([("Authorization", "Bearer personal"), ("Accept", "*/*")])
        request = PullRequest("GET", found.registries()[0], ROUTE, headers, "127.0.0.1")
        return await self.publicness.look(request, ROUTE.repository, "1")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as registry:
        registry.push_manifest("org/app", b"{}", tag="1")
        client = UpstreamClient(
            ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=lambda: 0.0)
        )
        records = MemoryRecords()
        health = Health(records, client.probe)
        upstreams = Upstreams(client, health, Quotas(), Bandwidth(), Conduct(records), lambda: 0.0)
        yield Bench(registry, Publicness(upstreams))
        await client.aclose()


async def test_what_needs_no_credential_is_public(bench: Bench) -> None:
    assert await bench.look() is True
    assert [str(seen) for seen in bench.registry.seen] == ["HEAD /v2/org/app/manifests/1"]
    assert not bench.registry.seen[0].authorized


async def test_a_token_issued_to_nobody_is_tried(bench: Bench) -> None:
    bench.registry.private.add("org/app")
    bench.registry.challenge = f'Bearer realm="{bench.registry.url}/token",service="registry.test"'
    bench.registry.anonymous_token = "good"
    assert await bench.look() is True
    assert [str(seen) for seen in bench.registry.seen][1] == "GET /token"
    assert [seen.authorized for seen in bench.registry.seen] == [False, False, True]


async def test_a_token_that_allows_nothing_means_private(bench: Bench) -> None:
    bench.registry.private.add("org/app")
    bench.registry.challenge = f'Bearer realm="{bench.registry.url}/token"'
    bench.registry.anonymous_token = "allows nothing"
    assert await bench.look() is False


@pytest.mark.parametrize(("status", "found"), [(401, False), (403, False), (404, None), (429, None), (503, None)])
async def test_only_a_verdict_counts(bench: Bench, status: int, found: bool | None) -> None:
    bench.registry.faults.append(Fault(status=status))
    assert await bench.look() is found


async def test_what_may_not_be_there_is_not_hidden(bench: Bench) -> None:
    """Else who asks for a tag that is not there, or takes it away, makes a repository private, for all it decides."""
    bench.registry.faults.append(Fault(status=404))
    assert await bench.look() is None


async def test_no_token_service_is_no_verdict(bench: Bench) -> None:
    bench.registry.private.add("org/app")
    bench.registry.challenge = f'Bearer realm="{bench.registry.url}/nowhere"'
    assert await bench.look() is None


@pytest.mark.parametrize("realm", ["http://169.254.169.254/latest", "https://127.0.0.1:1/token", "ftp://x/"])
async def test_a_realm_that_leads_elsewhere_without_https_or_inward(bench: Bench, realm: str) -> None:
    bench.registry.private.add("org/app")
    bench.registry.challenge = f'Bearer realm="{realm}"'
    assert await bench.look() in {None, False}
    assert len(bench.registry.seen) == 1


@pytest.mark.parametrize(
    ("challenge", "url"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"',
            "https://auth.docker.io/token?scope=repository%3Alibrary%2Fx%3Apull&service=registry.docker.io",
        ),
        ('Bearer realm="https://a.example/t?x=1"', "https://a.example/t?x=1&scope=repository%3Aorg%2Fapp%3Apull"),
        ('Basic realm="x"', None),
        ('Bearer service="x"', None),
        ('Bearer realm="file:///etc/passwd"', None),
        ("", None),
    ],
)
def test_where_the_token_is_to_be_had(challenge: str, url: str | None) -> None:
    found = [token_address(one, "org/app") for one in parse_challenges([challenge] if challenge else [])]
    assert next(iter(found), None) == url
