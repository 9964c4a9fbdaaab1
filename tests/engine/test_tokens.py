"""Token services relayed and stood in for: who gets which token, and what it is worth (DESIGN rules 3 and 5)."""

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlencode

import pytest
from tests.engine.test_asking import FORMS, PULLS
from tests.engine.test_engine import Clock
from tests.fakes.registry import FakeRegistry
from tests.fakes.tokens import REFUSAL, FakeTokens, basic, token_service

from entrepot.cache.interface import StoreError
from entrepot.cache.memory import MemoryRecords
from entrepot.engine.asking import FORM
from entrepot.engine.granted import DEFAULT_LIFE, MAX_LIFE
from entrepot.engine.identity import REMEMBERED_FOR, Identity
from entrepot.engine.messages import Answer, PullRequest, TokenRequest
from entrepot.engine.owntokens import LIFE, PREFIX
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.reception import Reception
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.routes import Ping, TokenRoute, parse_target
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.errors import Down, LoopDetected, UpstreamError
from entrepot.upstream.resolver import Resolver

TARGET = "/token?service=registry.test&scope=repository%3Aorg%2Fprivate%3Apull"
LOGIN = "/token?service=registry.test&account=ann&offline_token=true&client_id=docker"
ANN, WRONG, BOB = basic("ann", "anns-password"), basic("ann", "wrong"), basic("bob", "bobs-password")


@dataclass
class FakeHealth:
    """What the probes are said to have found; by origin."""

    down: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)

    def is_down(self, url: str) -> bool:
        return url in self.down | self.out

    def slow(self, url: str) -> None:
        """Nothing here is."""

    def is_out(self, url: str) -> bool:
        return url in self.out


@dataclass
class Desk:
    """Two processes of a box, a token service and the registry's address."""

    service: FakeTokens
    known: Registry
    health: FakeHealth
    clock: Clock
    records: MemoryRecords
    one: Reception
    two: Reception

    async def ask(
        self, target: str = TARGET, *fields: tuple[str, str], form: dict[str, str] | None = None, at: int = 1
    ) -> Answer:
        method: Literal["GET", "POST"] = "GET" if form is None else "POST"
        route = parse_target(target)
        assert isinstance(route, TokenRoute)
        headers = Headers([*fields, *([("Content-Type", FORM)] if form is not None else [])])
        body = urlencode(form or {}).encode()
        request = TokenRequest(method, self.known, self.service.url, route, headers, "192.0.2.1", body)
        return await (self.one if at == 1 else self.two).token(request)

    async def identify(self, authorization: str) -> Identity:
        return await self.two.identify(self.pull(authorization))

    def pull(self, authorization: str) -> PullRequest:
        headers = Headers([("Authorization", authorization)])
        return PullRequest("GET", self.known, Ping(), headers, "192.0.2.1")

    async def admit(self, authorization: str) -> Identity:
        """As when the registry has accepted it for a repository that is not public."""
        self.clock.now += 1
        request = self.pull(authorization)
        return await self.two.accepted(replace(request, identity=await self.two.identify(request)))

    async def verify(self, *fields: tuple[str, str], form: dict[str, str] | None = None) -> str:
        """The account of this password, once it has been admitted."""
        identity = await self.admit(f"Bearer {token_of(await self.ask(TARGET, *fields, form=form))}")
        self.clock.now += REMEMBERED_FOR
        assert identity.account
        return identity.account


def token_of(answer: Answer) -> str:
    assert answer.status == 200
    assert isinstance(answer.body, bytes)
    document = json.loads(answer.body)
    assert document.get("access_token", document["token"]) == document["token"]
    return str(document["token"])


def is_ours(answer: Answer) -> bool:
    return answer.status == 200 and token_of(answer).startswith(PREFIX)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    clock, health = Clock(), FakeHealth()
    records = MemoryRecords(clock)
    client = UpstreamClient(
        ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=clock)
    )
    (known,) = (
        Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream="http://127.0.0.1:2")]).registries()
    )

    def process() -> Reception:
        patience = Patience(health)  # type: ignore[arg-type]  # as much of it as is used
        return Reception(records, client, health, patience, key=b"k" * 32, policy=Policy(), clock=clock)

    async with token_service(FakeTokens(FakeRegistry())) as service:
        yield Desk(service, known, health, clock, records, process(), process())
        await client.aclose()


class TestRelayed:
    @pytest.mark.parametrize(("target", "repository"), PULLS)
    async def test_a_pull_of_a_registry_as_it_is(self, desk: Desk, target: str, repository: str | None) -> None:
        answer = await desk.ask(target, ANN, ("User-Agent", "docker/28"), ("Accept-Encoding", "gzip"))
        (asked,) = desk.service.seen
        assert (asked.method, asked.target) == ("GET", target)
        assert asked.headers["User-Agent"] == "docker/28"
        assert asked.headers["Authorization"] == ANN[1]
        assert asked.headers["Accept-Encoding"] == "identity"
        assert answer.verdict == "pass"
        assert desk.service.issued == {token_of(answer): "ann"}
        assert answer.headers.get("x-served-by") == "tokens"

    @pytest.mark.parametrize(("target", "form", "claim"), FORMS)
    async def test_a_form_of_a_client_as_it_is(
        self, desk: Desk, target: str, form: dict[str, str], claim: object
    ) -> None:
        desk.service.identity_tokens["r"] = "ann"
        token = token_of(await desk.ask(target, ("Accept", "application/json"), form=form))
        (asked,) = desk.service.seen
        assert (asked.method, asked.target, asked.form) == ("POST", target, form)
        assert asked.headers["Content-Type"] == FORM
        assert asked.headers["Accept"] == "application/json"
        assert desk.service.issued == {token: "ann"}

    async def test_a_refusal_is_passed_on(self, desk: Desk) -> None:
        answer = await desk.ask(TARGET, WRONG)
        assert (answer.status, answer.body, answer.verdict) == (401, REFUSAL, "refused")
        assert answer.headers.get("www-authenticate") == 'Basic realm="tokens"'

    @pytest.mark.parametrize("path", ["/token?service=x", "/jwt/auth?scope=repository:a:pull"])
    async def test_what_is_no_token_service_answers_for_itself(self, desk: Desk, path: str) -> None:
        desk.service.status = 404
        assert (await desk.ask(path)).status == 404

    async def test_only_what_a_token_service_needs_is_sent(self, desk: Desk) -> None:
        await desk.ask(TARGET, ("X-Forwarded-For", "192.0.2.1"), ("Referer", "x"))
        (asked,) = desk.service.seen
        assert not {"X-Forwarded-For", "Referer", "Authorization"} & asked.headers.keys()


class TestLearnt:
    async def test_a_token_for_nobody(self, desk: Desk) -> None:
        identity = await desk.identify(f"Bearer {token_of(await desk.ask())}")
        assert (identity.anonymous, identity.account, identity.until) == (True, "", desk.clock.now + 300)

    @pytest.mark.parametrize("named", [("token",), ("access_token",), ("token", "access_token")])
    @pytest.mark.parametrize(
        ("lasting", "life"), [(600, 600.0), (None, DEFAULT_LIFE), (-1, DEFAULT_LIFE), (1e9, MAX_LIFE)]
    )
    async def test_the_shapes_of_answers(
        self, desk: Desk, named: tuple[str, ...], lasting: float | None, life: float
    ) -> None:
        desk.service.named, desk.service.lasting = named, lasting
        answer = await desk.ask()
        assert isinstance(answer.body, bytes)
        token = json.loads(answer.body)[named[0]]
        identity = await desk.identify(f"Bearer {token}")
        assert (identity.anonymous, identity.until) == (True, desk.clock.now + life)

    async def test_a_token_for_somebody_is_of_no_account_until_it_was_admitted(self, desk: Desk) -> None:
        token = token_of(await desk.ask(TARGET, ANN))
        identity = await desk.identify(f"Bearer {token}")
        assert (identity.anonymous, identity.account) == (False, "")
        account = (await desk.admit(f"Bearer {token}")).account
        assert account
        later = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, ANN))}")
        assert (later.account, later.account_for("org/private"), later.account_for("org/x")) == (account, account, "")

    async def test_an_identity_token_is_an_account(self, desk: Desk) -> None:
        desk.service.identity_tokens = {"r1": "ann", "r2": "ann"}
        form = {"grant_type": "refresh_token", "service": "s", "scope": "repository:org/private:pull"}
        first = await desk.verify(form=form | {"refresh_token": "r1"})
        assert await desk.verify(form=form | {"refresh_token": "r1"}) == first
        assert await desk.verify(form=form | {"refresh_token": "r2"}) != first
        assert await desk.verify(ANN) != first

    async def test_a_wrong_password_is_nobody_s_account_where_everybody_gets_a_token(self, desk: Desk) -> None:
        desk.service.lenient = True
        account = await desk.verify(ANN)
        for fields in (WRONG, basic("ann", ""), basic("ann ", "anns-password")):
            identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, fields))}")
            assert (identity.account, identity.anonymous) == ("", False)
        # Should such a token ever be accepted somewhere: what ann was admitted to is not opened by it.
        assert (await desk.admit(f"Bearer {token_of(await desk.ask(TARGET, WRONG))}")).account not in {"", account}

    async def test_nothing_is_learnt_from_two_credentials(self, desk: Desk) -> None:
        """bob vouches for a password of ann's that is none."""
        desk.service.identity_tokens["bobs"] = "bob"
        form = {"grant_type": "refresh_token", "service": "s", "scope": "repository:org/private:pull"}
        form |= {"refresh_token": "bobs", "username": "ann", "password": "wrong"}
        token = token_of(await desk.ask(TARGET, form=form))
        assert desk.service.issued[token] == "bob"
        assert (await desk.admit(f"Bearer {token}")).account == ""
        assert [key for key in desk.records._values if not key.startswith("grant/")] == []

    async def test_a_store_that_does_not_write_costs_no_token(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail(*args: object, **kwargs: object) -> None:
            raise StoreError("disk is full")

        monkeypatch.setattr(desk.records, "put", fail)
        assert (await desk.ask(TARGET, ANN)).status == 200
        assert (await desk.ask(TARGET, WRONG)).status == 401
        assert "disk is full" in caplog.text


TROUBLES = ["gone", "down", 429, 500, 503]


def trouble(desk: Desk, kind: str | int) -> None:
    """The token service is away, for this reason."""
    if isinstance(kind, int):
        desk.service.status = kind
    else:
        desk.service.gone = True
    if kind == "down":
        desk.health.out.add(desk.service.url)


@pytest.mark.parametrize("kind", TROUBLES)
class TestInstead:
    async def test_nobody_gets_a_token_of_ours(self, desk: Desk, kind: str | int) -> None:
        trouble(desk, kind)
        answer = await desk.ask()
        assert (answer.verdict, answer.headers.get("x-entrepot")) == ("stale", "stale")
        assert answer.headers.get("content-type") == "application/json"
        assert isinstance(answer.body, bytes)
        document = json.loads(answer.body)
        assert (document["expires_in"], document["issued_at"]) == (LIFE, "1970-01-12T13:46:40Z")
        identity = await desk.identify(f"Bearer {token_of(answer)}")
        assert (identity.own, identity.anonymous, identity.account) == (True, True, "")
        assert identity.grace == (kind == "down"), "only a probe makes it certain"

    async def test_a_verified_password_gets_a_token_for_its_account(self, desk: Desk, kind: str | int) -> None:
        account = await desk.verify(ANN)
        trouble(desk, kind)
        for at in (1, 2):
            identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, ANN, at=at))}")
            assert (identity.own, identity.anonymous, identity.account) == (True, False, account)
            assert identity.account_for("org/private") == account
            assert identity.account_for("org/other") == ""
        form = {"grant_type": "password", "username": "ann", "password": "anns-password", "service": "s"}
        assert is_ours(await desk.ask("/token", form=form))

    async def test_an_identity_token_that_was_admitted_gets_one(self, desk: Desk, kind: str | int) -> None:
        desk.service.identity_tokens["r"] = "ann"
        form = {"grant_type": "refresh_token", "service": "s", "scope": "repository:org/private:pull"}
        account = await desk.verify(form=form | {"refresh_token": "r"})
        trouble(desk, kind)
        identity = await desk.identify(
            f"Bearer {token_of(await desk.ask('/token', form=form | {'refresh_token': 'r'}))}"
        )
        assert identity.account == account
        other = await desk.ask("/token", form=form | {"refresh_token": "made up"})
        assert (await desk.identify(f"Bearer {token_of(other)}")).anonymous

    async def test_a_wrong_password_is_refused_as_the_service_refuses(self, desk: Desk, kind: str | int) -> None:
        await desk.verify(ANN)
        said = await desk.ask(TARGET, WRONG)
        trouble(desk, kind)
        for at in (1, 2):
            answer = await desk.ask(TARGET, WRONG, at=at)
            assert (answer.status, answer.body) == (401, said.body)
            for name in ("content-type", "www-authenticate"):
                assert answer.headers.get_all(name) == said.headers.get_all(name)
            assert "x-request-id" not in answer.headers

    async def test_a_wrong_password_is_refused_in_standard_words_by_default(self, desk: Desk, kind: str | int) -> None:
        await desk.verify(ANN)
        trouble(desk, kind)
        answer = await desk.ask(TARGET, WRONG)
        assert (answer.status, answer.verdict) == (401, "refused")
        assert isinstance(answer.body, bytes)
        assert json.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"

    async def test_an_old_password_is_refused(self, desk: Desk, kind: str | int) -> None:
        await desk.verify(ANN)
        desk.service.users["ann"] = "changed"
        account = await desk.verify(basic("ann", "changed"))
        trouble(desk, kind)
        for at in (1, 2):
            assert (await desk.ask(TARGET, ANN, at=at)).status == 401
            changed = await desk.ask(TARGET, basic("ann", "changed"), at=at)
            assert (await desk.identify(f"Bearer {token_of(changed)}")).account == account

    async def test_a_password_that_was_refused_since_is_refused(self, desk: Desk, kind: str | int) -> None:
        await desk.verify(ANN)
        desk.service.users["ann"] = "changed"
        assert (await desk.ask(TARGET, ANN, at=2)).status == 401
        trouble(desk, kind)
        assert (await desk.ask(TARGET, ANN)).status == 401

    async def test_a_password_of_which_nothing_is_known_gets_what_nobody_gets(
        self, desk: Desk, kind: str | int
    ) -> None:
        """Whoever is logged in and pulls public images has shown nothing; and has no other way to them."""
        await desk.ask(TARGET, BOB)
        trouble(desk, kind)
        identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, BOB))}")
        assert (identity.own, identity.anonymous, identity.account) == (True, True, "")

    async def test_a_login_that_nobody_can_check_fails(self, desk: Desk, kind: str | int) -> None:
        trouble(desk, kind)
        if isinstance(kind, int):
            assert (await desk.ask(LOGIN, BOB)).status == kind
        else:
            with pytest.raises(UpstreamError):
                await desk.ask(LOGIN, BOB)

    async def test_a_login_that_we_can_check_succeeds(self, desk: Desk, kind: str | int) -> None:
        await desk.verify(ANN)
        trouble(desk, kind)
        assert is_ours(await desk.ask(LOGIN, ANN))
        assert (await desk.ask(LOGIN, WRONG)).status == 401

    async def test_what_is_not_understood_gets_upstream_s_trouble(self, desk: Desk, kind: str | int) -> None:
        trouble(desk, kind)
        form = {"grant_type": "access_token", "service": "s", "access_token": "aad"}
        if isinstance(kind, int):
            page = await desk.ask("/group/auth?scope=all")
            assert page.status == kind
        for target, body in (
            ("/oauth2/exchange", form),
            ("/oauth/token", {"grant_type": "password"}),
            ("/token", form),
        ):
            try:
                answer = await desk.ask(target, form=body)
            except EntrepotError:
                continue
            assert not is_ours(answer)
            assert answer.status == kind


class TestWhichIsAway:
    async def test_the_registry_alone(self, desk: Desk) -> None:
        """Then tokens of the service's would be of no use; but a login is still its business."""
        account = await desk.verify(ANN)
        desk.health.out.add(desk.known.upstream)
        desk.service.seen.clear()
        assert is_ours(await desk.ask())
        identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, ANN))}")
        assert (identity.account, identity.grace) == (account, True)
        assert desk.service.seen == []
        answer = await desk.ask(LOGIN, BOB)
        assert desk.service.issued[token_of(answer)] == "bob"
        assert (await desk.ask(TARGET, WRONG)).body == REFUSAL

    async def test_what_looks_sick_to_clients_only_gives_no_grace(self, desk: Desk) -> None:
        """A client can make a registry look sick, and would get more than it answers."""
        await desk.verify(ANN)
        desk.health.down.add(desk.known.upstream)
        desk.service.status = 503
        identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, ANN))}")
        assert (identity.own, identity.grace) == (True, False)

    async def test_what_may_be_well_is_asked_for_a_token_that_it_knows(self, desk: Desk) -> None:
        """A registry that is slow would not know what to do with ours; who has no rights to lose does not wait."""
        await desk.verify(ANN)
        desk.health.down.add(desk.known.upstream)
        assert not is_ours(await desk.ask(TARGET, ANN))
        assert is_ours(await desk.ask())

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(("path", "certain"), [("/token", True), ("/other", False)])
    async def test_the_service_alone_at_a_host_that_answers(
        self, desk: Desk, path: str, certain: bool, status: int
    ) -> None:
        """A look of the box's own at what the registry has named makes it certain, and no other one does."""
        await desk.verify(ANN)
        desk.service.status = status
        said = f'Bearer realm="{desk.service.url}{path}",service="registry.test"'
        await desk.records.put("challenge/registry.test/repository", {"challenges": [said]})
        desk.service.seen.clear()
        identity = await desk.identify(f"Bearer {token_of(await desk.ask(TARGET, ANN))}")
        assert (identity.own, identity.grace) == (True, certain)
        looks = [one.target for one in desk.service.seen if "Authorization" not in one.headers]
        assert looks == ["/token?service=registry.test"] * certain

    async def test_nobody(self, desk: Desk) -> None:
        assert not is_ours(await desk.ask())

    async def test_a_form_is_sent_again_when_an_idle_connection_was_closed_under_it(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, tries = UpstreamClient.open, 0

        def flaky(self: UpstreamClient, *args: object, **kwargs: object) -> object:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise Down("tokens", "closed the connection before it answered")
            return real(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(UpstreamClient, "open", flaky)
        form = {"grant_type": "password", "username": "ann", "password": "anns-password", "service": "s"}
        assert not is_ours(await desk.ask("/token", form=form))
        assert tries == 2

    async def test_a_loop_is_no_outage(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        def loop(*args: object, **kwargs: object) -> object:
            raise LoopDetected("tokens", "leads to our own address")

        monkeypatch.setattr(UpstreamClient, "open", loop)
        with pytest.raises(LoopDetected):
            await desk.ask()


async def test_a_service_that_names_whom_it_refuses_is_not_quoted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.verify(ANN)
    for said in (b"no such user: ann", b"not the password: WRONG-one", b"\xff\xfe", b"x" * 10_000):
        monkeypatch.setattr("tests.fakes.tokens.REFUSAL", said)
        await desk.ask(TARGET, basic("ann", "wrong-one"))
    assert [key for key in desk.records._values if key.startswith("refusal/")] == []


async def test_nothing_secret_is_kept_or_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Issue 4, and the reason why there is a key of the box."""
    caplog.set_level(logging.DEBUG)
    desk.service.identity_tokens["s3cr3t-identity"] = "ann"
    desk.service.users = {"ann-s3cr3t": "s3cr3t-password", "ann": "s3cr3t-other"}
    desk.service.readers = {"ann", "ann-s3cr3t"}
    refresh = {"grant_type": "refresh_token", "service": "s", "refresh_token": "s3cr3t-identity"}
    by_form = {"grant_type": "password", "username": "ann", "password": "s3cr3t-other", "service": "s"}
    given: list[tuple[tuple[tuple[str, str], ...], dict[str, str] | None]] = [
        ((basic("ann-s3cr3t", "s3cr3t-password"),), None),
        ((), by_form),
        ((), refresh),
        ((), refresh | {"refresh_token": "s3cr3t-wrong"}),
        ((basic("ann-s3cr3t", "s3cr3t-wrong"),), None),
        ((("Authorization", "Bearer s3cr3t-bearer"),), {"access_token": "s3cr3t-aad"}),
        ((("Authorization", "Basic s3cr3t"),), None),
    ]
    said: list[str] = []
    for health in ("well", "down"):
        if health == "down":
            desk.health.out.add(desk.known.upstream)
        for fields, form in given:
            target = TARGET + "&password=s3cr3t-query" if fields == given[-1][0] else TARGET
            try:
                answer = await desk.ask(target, *fields, form=form)
            except EntrepotError as e:
                said.append(f"{e} {e!r}")
                continue
            said += [answer.why, repr(answer.headers)]
            if answer.status == 200:
                said.append(repr(await desk.admit(f"Bearer {token_of(answer)}")))
    tokens = [*desk.service.issued]
    assert len(tokens) >= 3
    kept = "\n".join(f"{key}={value}" for key, value in desk.records._values.items())
    assert "verifier/" in kept
    assert "token/" in kept
    logged = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("entrepot"))
    assert "/token" in logged
    for text in (kept, logged, *said):
        assert "s3cr3t" not in text
        assert not [token for token in tokens if token in text]
