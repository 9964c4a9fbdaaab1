"""Challenges of registries, heard while they answer and said while they do not."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.engine.test_engine import Clock

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.messages import Answer, PullRequest
from entrepot.engine.realms import Realms
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.challenges import parse_challenges
from entrepot.registry.routes import ManifestRoute, Ping
from entrepot.upstream.errors import Down, LoopDetected, Unreachable

(QUAY,) = Catalogue([]).with_overrides([RegistryOverride("quay.io")]).registries()
PING = PullRequest("GET", QUAY, Ping(), Headers(), "192.0.2.1")
PULL = replace(PING, route=ManifestRoute("org/app", "1"))
LOGGED_IN = Headers([("Authorization", "Bearer abc")])
BASIC = 'Basic realm="quay"'

# As registries challenge for a repository, and what is said for another one.
CHALLENGES = [
    (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:a/b:pull,push"',
        'Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"',
        'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="repository:a:pull",'
        'error="invalid_token"',
        'Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"',
        'Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://gcr.io/v2/token",service="gcr.io",scope="repository:p/app:pull"',
        'Bearer realm="https://gcr.io/v2/token",service="gcr.io",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://acme.azurecr.io/oauth2/token",service="acme.azurecr.io",scope="repository:a:pull",'
        'error="invalid_token"',
        'Bearer realm="https://acme.azurecr.io/oauth2/token",service="acme.azurecr.io",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://nvcr.io/proxy_auth?scope=repository:nvidia/cuda:pull"',
        'Bearer realm="https://nvcr.io/proxy_auth",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://harbor.test/service/token",service="harbor-registry",scope="repository:a/b:pull"',
        'Bearer realm="https://harbor.test/service/token",service="harbor-registry",scope="repository:org/app:pull"',
    ),
    (
        'Bearer realm="https://a.test/token?account=x&scope=repository:a:pull",service="s"',
        'Bearer realm="https://a.test/token?account=x",service="s",scope="repository:org/app:pull"',
    ),
    ('Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr"', None),
]


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords(Clock())


@pytest.fixture
def realms(records: MemoryRecords) -> Realms:
    return Realms(records)


def challenged(*values: str) -> Headers:
    return Headers(("WWW-Authenticate", value) for value in values)


def said(answer: Answer | None) -> list[str]:
    assert answer is not None
    return answer.headers.get_all("www-authenticate")


class TestRepositories:
    @pytest.mark.parametrize(("heard", "expected"), CHALLENGES)
    async def test_the_challenge_of_another_repository(self, realms: Realms, heard: str, expected: str | None) -> None:
        await realms.observe(PULL, 401, challenged(heard))
        answer = realms.challenge_for(QUAY, "org/app")
        assert parse_challenges(said(answer)) == parse_challenges([expected or heard])
        assert answer is not None
        assert (answer.status, answer.verdict, answer.headers.get("x-entrepot")) == (401, "refused", "stale")
        assert isinstance(answer.body, bytes)
        assert json.loads(answer.body)["errors"][0] == {
            "code": "UNAUTHORIZED",
            "message": "authentication required",
            "detail": [{"Type": "repository", "Class": "", "Name": "org/app", "Action": "pull"}],
        }
        assert answer.length == len(answer.body)

    async def test_all_challenges_in_their_order(self, realms: Realms, records: MemoryRecords) -> None:
        """quay.io offers Basic as well, at times."""
        await realms.observe(PULL, 401, challenged('Bearer realm="https://quay.io/v2/auth",service="quay.io"', BASIC))
        for process in (realms, Realms(records)):
            assert [each.scheme for each in parse_challenges(said(process.challenge_for(QUAY, "a")))] == [
                "bearer",
                "basic",
            ]

    async def test_who_has_a_credential_hears_that_it_is_not_enough(self, realms: Realms) -> None:
        await realms.observe(PULL, 401, challenged(CHALLENGES[0][0]))
        (challenge,) = parse_challenges(said(realms.challenge_for(QUAY, "a/b", insufficient=True)))
        assert challenge.params["error"] == "insufficient_scope"

    async def test_nothing_heard_nothing_said(self, realms: Realms, records: MemoryRecords) -> None:
        await realms.observe(PULL, 401, Headers())
        await realms.observe(PULL, 401, challenged("=nonsense"))
        await realms.observe(PULL, 404, challenged(BASIC))
        await realms.observe(replace(PULL, headers=LOGGED_IN), 200, Headers())
        assert realms.challenge_for(QUAY, "org/app") is None
        assert list(records.scan("")) == []

    async def test_the_same_is_written_once(self, realms: Realms, records: MemoryRecords) -> None:
        await realms.observe(
            PULL, 401, challenged('Bearer realm="https://q/token",service="s",scope="repository:a:pull"')
        )
        records._values.clear()
        await realms.observe(
            PULL, 401, challenged('Bearer realm="https://q/token",service="s",scope="repository:b:pull"')
        )
        await realms.observe(PULL, 200, Headers())
        assert list(records.scan("")) == []
        await realms.observe(PULL, 401, challenged('Bearer realm="https://other/token",service="s"'))
        assert [key for key, _ in records.scan("")] == ["challenge/quay.io/repository"]

    @pytest.mark.parametrize(
        ("realm", "expected"),
        [
            ("https://auth.quay.io/token", "https://auth.quay.io/token"),
            ("https://git.acme.test/jwt/auth", "https://quay.io/token"),
            ("https://auth.quay.io/api/tickets", "https://quay.io/token"),
        ],
    )
    async def test_where_we_do_not_stand_in_clients_are_not_sent(
        self, realms: Realms, realm: str, expected: str
    ) -> None:
        realms.intercepts = lambda name: name.endswith("quay.io")
        await realms.observe(PULL, 401, challenged(f'Bearer realm="{realm}",service="s"'))
        (challenge,) = parse_challenges(said(realms.challenge_for(QUAY, "a")))
        assert challenge.params["realm"] == expected


def answering(status: int, *fields: tuple[str, str], body: bytes = b"{}") -> Callable[[PullRequest], Awaitable[Answer]]:
    async def relay(request: PullRequest) -> Answer:
        return Answer(status, Headers(fields), body, "pass" if status < 400 else "refused", length=len(body))

    return relay


async def away(request: PullRequest) -> Answer:
    raise Unreachable("quay.io", "gone")


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


CHALLENGE = ("WWW-Authenticate", 'Bearer realm="https://quay.io/v2/auth",service="quay.io"')
REFUSES = answering(
    401, CHALLENGE, ("Content-Type", "application/json"), ("X-Request-Id", "1"), body=b'{"errors":[{"code":"X"}]}'
)


class TestPing:
    async def test_it_is_relayed_while_upstream_answers(self, realms: Realms) -> None:
        for relay in (REFUSES, answering(200), answering(404)):
            answer = await realms.ping(PING, relay, down=False, shown=no)
            assert answer == await relay(PING)

    @pytest.mark.parametrize("trouble", [answering(503), answering(429), away])
    @pytest.mark.parametrize("down", [False, True])
    async def test_the_same_challenge_in_an_outage(
        self, realms: Realms, records: MemoryRecords, trouble: Callable[[PullRequest], Awaitable[Answer]], down: bool
    ) -> None:
        heard = await realms.ping(PING, REFUSES, down=False, shown=no)
        for process in (realms, Realms(records)):
            answer = await process.ping(PING, trouble, down=down, shown=no)
            assert (answer.status, answer.body, answer.verdict) == (401, heard.body, "stale")
            assert parse_challenges(said(answer)) == parse_challenges(said(heard))
            assert answer.headers.get("content-type") == "application/json"
            assert answer.headers.get("x-entrepot") == "stale"
            assert "x-request-id" not in answer.headers
            head = await process.ping(replace(PING, method="HEAD"), trouble, down=down, shown=no)
            assert (head.status, head.length) == (401, len(answer.body))  # type: ignore[arg-type]

    async def test_the_same_yes_in_an_outage(self, realms: Realms) -> None:
        await realms.ping(
            PING, answering(200, ("Docker-Distribution-Api-Version", "registry/2.0")), down=False, shown=no
        )
        answer = await realms.ping(PING, away, down=True, shown=no)
        assert (answer.status, answer.headers.get("docker-distribution-api-version")) == (200, "registry/2.0")

    async def test_a_good_credential_is_good(self, realms: Realms) -> None:
        await realms.ping(PING, REFUSES, down=False, shown=no)
        request = replace(PING, headers=LOGGED_IN)
        assert (await realms.ping(request, away, down=True, shown=yes)).status == 200
        assert (await realms.ping(request, away, down=True, shown=no)).status == 401

    async def test_what_somebody_with_a_credential_hears_is_not_for_others(self, realms: Realms) -> None:
        await realms.ping(replace(PING, headers=LOGGED_IN), answering(200), down=False, shown=no)
        with pytest.raises(Unreachable):
            await realms.ping(PING, away, down=True, shown=no)

    async def test_a_registry_never_pinged_challenges_as_its_repositories_do(self, realms: Realms) -> None:
        """containerd and BuildKit do not ping; docker does."""
        await realms.observe(PULL, 401, challenged(CHALLENGES[1][0]))
        answer = await realms.ping(PING, away, down=True, shown=no)
        assert answer.status == 401
        assert parse_challenges(said(answer)) == parse_challenges([CHALLENGE[1]])

    async def test_a_registry_never_pinged_that_needs_no_token(self, realms: Realms) -> None:
        await realms.observe(PULL, 200, Headers())
        assert (await realms.ping(PING, away, down=True, shown=no)).status == 200
        assert realms.challenge_for(QUAY, "a") is None

    async def test_of_a_registry_of_which_nothing_is_known_nothing_is_made_up(self, realms: Realms) -> None:
        with pytest.raises(Down):
            await realms.ping(PING, _raising(Down("quay.io", "down")), down=True, shown=yes)
        assert (await realms.ping(PING, answering(503), down=True, shown=yes)).status == 503

    async def test_a_loop_is_no_outage(self, realms: Realms) -> None:
        await realms.ping(PING, REFUSES, down=False, shown=no)
        with pytest.raises(LoopDetected):
            await realms.ping(PING, _raising(LoopDetected("quay.io", "ourselves")), down=False, shown=no)

    async def test_pages_and_oddities_are_not_remembered(self, realms: Realms, records: MemoryRecords) -> None:
        for relay in (answering(200, body=b"x" * 5000), answering(401), answering(302), answering(403, CHALLENGE)):
            await realms.ping(PING, relay, down=False, shown=no)
        await realms.ping(replace(PING, method="HEAD"), REFUSES, down=False, shown=no)
        assert list(records.scan("")) == []


def _raising(error: Exception) -> Callable[[PullRequest], Awaitable[Answer]]:
    async def relay(request: PullRequest) -> Answer:
        raise error

    return relay
