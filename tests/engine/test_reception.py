"""Challenges, tokens and identities through the whole engine, against a registry and its token service on loopback."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.engine.test_engine import ACCEPT, BAD, Bench, bench
from tests.engine.test_tokens import FakeHealth, token_of
from tests.fakes.registry import CHALLENGE, FakeRegistry, Fault
from tests.fakes.tokens import FakeTokens, basic, token_service

from entrepot.engine.engine import Engine
from entrepot.engine.identity import VOID, Identity
from entrepot.engine.messages import Answer, PullRequest, TokenRequest
from entrepot.headers import Headers
from entrepot.registry.routes import Ping, TokenRoute, parse_target

__all__ = ["bench"]  # the fixture
PRIVATE = "/v2/org/app/manifests/1"
ANN = basic("ann", "anns-password")


@pytest.fixture
def health(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FakeHealth:
    """What reception is told; the engine's own health sees what really happens."""
    fake = FakeHealth()
    monkeypatch.setattr(bench.engine.reception, "_health", fake)
    monkeypatch.setattr(bench.engine.reception._tokens, "_health", fake)
    return fake


@pytest.fixture
async def service(bench: Bench) -> AsyncIterator[FakeTokens]:
    bench.registry.private.add("org/app")
    async with token_service(FakeTokens(bench.registry)) as tokens:
        yield tokens


async def ask_token(bench: Bench, service: FakeTokens, *fields: tuple[str, str]) -> Answer:
    route = parse_target("/token?service=registry.test&scope=repository:org/app:pull")
    assert isinstance(route, TokenRoute)
    return await bench.engine.token(TokenRequest("GET", bench.known, service.url, route, Headers(fields), "192.0.2.1"))


async def identity_of(engine: Engine, bench: Bench, *fields: tuple[str, str]) -> Identity:
    return await engine.reception.identify(PullRequest("GET", bench.known, Ping(), Headers(fields), "192.0.2.1"))


def test_what_the_engine_takes() -> None:
    assert Engine.takes("GET", parse_target("/token?service=s"))
    assert Engine.takes("POST", parse_target("/token"))
    for method, target in (("GET", "/token"), ("HEAD", "/token?service=s"), ("PUT", "/token?service=s")):
        assert not Engine.takes(method, parse_target(target))


async def test_a_token_opens_what_it_is_for(bench: Bench, service: FakeTokens) -> None:
    token = token_of(await ask_token(bench, service, ANN))
    answer, _ = await bench.get(PRIVATE, ACCEPT, ("Authorization", f"Bearer {token}"))
    assert answer.status == 200
    anybody = token_of(await ask_token(bench, service))
    assert (await bench.ask("GET", PRIVATE, ACCEPT, ("Authorization", f"Bearer {anybody}"))).status == 401


async def test_a_service_that_is_not_there_costs_a_login_an_error_of_ours(bench: Bench, service: FakeTokens) -> None:
    service.gone = True
    route = parse_target("/token?service=registry.test")
    assert isinstance(route, TokenRoute)
    request = TokenRequest("GET", bench.known, service.url, route, Headers([ANN]), "192.0.2.1")
    answer = await bench.engine.token(request)
    assert (answer.status, answer.verdict) == (502, "failed")


async def test_once_the_service_has_failed_nobody_waits_for_it(bench: Bench, service: FakeTokens) -> None:
    """With the engine's own eyes: no probe has come back yet, so it is not certain either."""
    service.gone = True
    assert not bench.engine.health.is_down(service.url)
    token_of(await ask_token(bench, service))
    asked = len([each for each in service.seen if each.target != "/"])
    assert bench.engine.health.is_down(service.url)
    answer = await ask_token(bench, service)
    assert (answer.verdict, len([each for each in service.seen if each.target != "/"])) == ("stale", asked)


async def test_a_token_of_ours_never_reaches_the_registry(bench: Bench, service: FakeTokens) -> None:
    """It comes back with upstream's own challenge, as if it had never been."""
    service.status = 503
    token = token_of(await ask_token(bench, service))
    for method in ("GET", "HEAD"):
        answer = await bench.ask(method, PRIVATE, ACCEPT, ("Authorization", f"Bearer {token}"))
        assert answer.status == 401
        assert answer.headers.get("www-authenticate") == CHALLENGE.format(name="org/app")
    assert bench.registry.seen
    assert not any(seen.authorized for seen in bench.registry.seen)


async def test_challenges_are_learnt_as_requests_pass(bench: Bench, service: FakeTokens) -> None:
    realms = bench.engine.reception.realms
    assert realms.challenge_for(bench.known, "org/app") is None
    await bench.ask("GET", PRIVATE, ACCEPT, BAD)
    learnt = realms.challenge_for(bench.known, "org/other")
    assert learnt is not None
    assert learnt.headers.get("www-authenticate") == CHALLENGE.format(name="org/other")


@pytest.mark.parametrize("status", [429, 503])
async def test_the_ping_in_an_outage(bench: Bench, service: FakeTokens, health: FakeHealth, status: int) -> None:
    await bench.ask("GET", PRIVATE, ACCEPT)
    bench.registry.faults.append(Fault("/v2/", status=status, count=-1))
    service.status = 503
    answer = await bench.ask("GET", "/v2/")
    assert (answer.status, answer.verdict) == (401, "stale")
    assert "scope" not in (answer.headers.get("www-authenticate") or "")
    assert (await bench.ask("GET", "/v2/", BAD)).status == 401
    token = token_of(await ask_token(bench, service))
    assert (await bench.ask("GET", "/v2/", ("Authorization", f"Bearer {token}"))).status == 200
    health.out.add(bench.known.upstream)
    bench.registry.forget()
    assert (await bench.ask("GET", "/v2/")).status == 401
    assert bench.registry.seen == []


async def test_a_token_of_upstream_s_is_good_for_the_ping_to_its_end(
    bench: Bench, service: FakeTokens, health: FakeHealth
) -> None:
    await bench.ask("GET", PRIVATE, ACCEPT)
    token = ("Authorization", f"Bearer {token_of(await ask_token(bench, service))}")
    health.out.add(bench.known.upstream)
    assert (await bench.ask("GET", "/v2/", token)).status == 200
    bench.clock.now += 301
    assert (await bench.ask("GET", "/v2/", token)).status == 401


@pytest.fixture
def with_passwords(bench: Bench) -> FakeRegistry:
    """A registry that takes passwords itself: what is in its list of credentials is a Basic one."""

    class Basic(FakeRegistry):
        def _refusal(self, request):  # type: ignore[no-untyped-def]
            name = request.path.removeprefix("/v2/").partition("/manifests/")[0]
            credential = request.headers.get("Authorization", "").removeprefix("Basic ")
            if name not in self.private or credential in self.credentials:
                return None
            refusal = super()._refusal(request)
            assert refusal is not None
            refusal.headers["WWW-Authenticate"] = 'Basic realm="registry"'
            return refusal

    bench.registry.__class__ = Basic
    bench.registry.private.add("org/app")
    bench.registry.credentials = {ANN[1].removeprefix("Basic ")}
    return bench.registry


async def test_a_password_sent_to_the_registry_itself(
    bench: Bench, with_passwords: FakeRegistry, health: FakeHealth
) -> None:
    reception = bench.engine.reception
    assert (await bench.ask("GET", PRIVATE, ACCEPT, ANN)).status == 200
    request = PullRequest("GET", bench.known, Ping(), Headers([ANN]), "192.0.2.1")
    admitted = await reception.accepted(replace(request, identity=await reception.identify(request)))
    assert admitted.account
    health.out.add(bench.known.upstream)
    assert (await identity_of(bench.engine, bench, ANN)).account == admitted.account
    assert (await identity_of(bench.engine, bench, basic("ann", "wrong"))).credential.startswith(VOID)
    health.out.clear()

    with_passwords.credentials = {basic("ann", "changed")[1].removeprefix("Basic ")}
    bench.clock.now += 301
    assert (await bench.ask("GET", PRIVATE, ACCEPT, ANN)).status == 401
    health.out.add(bench.known.upstream)
    assert (await identity_of(bench.engine, bench, ANN)).credential.startswith(VOID), (
        "the registry has refused it meanwhile"
    )


async def test_a_basic_challenge_is_said_again(bench: Bench, with_passwords: FakeRegistry, health: FakeHealth) -> None:
    await bench.ask("GET", PRIVATE, ACCEPT)
    health.out.add(bench.known.upstream)
    answer = bench.engine.reception.realms.challenge_for(bench.known, "org/app")
    assert answer is not None
    assert answer.headers.get_all("www-authenticate") == ['Basic realm="registry"']
    assert (await bench.ask("GET", "/v2/")).headers.get("www-authenticate") == 'Basic realm="registry"'
