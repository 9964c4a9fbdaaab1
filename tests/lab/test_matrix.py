"""Each cell of the table in `matrix`, tried: who gets what, in every state of upstream (DESIGN rules 3 and 5)."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.lab import matrix, world
from tests.lab.contents import Content, Request, Stock, stock
from tests.lab.identities import Begin, Lines, Shown, basic, way_in
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Reply, Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

A_FIRST, A, B = (world.ALICE, world.ALICE_FIRST), (world.ALICE, world.ALICE_LATER), (world.BOB, world.BOBS)
LOGINS = {"A": A, "B": B, "A,wrong": (world.ALICE, "not hers"), "A,old": A_FIRST}
BEGIN: Mapping[str, Begin] = {"A": "manifest"}  # as containerd; the others begin as docker and podman do
FRESH = "[policy]\n"
LAPSED = '[policy]\ntag_ttl = "0s"\naccess_ttl = "0s"\n'
"""What a registry can be asked, it is asked: no yes and no tag counts without that, but in an outage."""
WORKERS = 2
SHORT = 5  # seconds, of a token that is to end
SLOW = 1.5  # seconds: half a second longer than there is patience for
AT_ONCE = {"slow": 64, "blackholed": 32, "no tokens": 32}
FEW = 4
TRIES = 6  # so many connections meet each worker, all but surely
OURS = "entrepot~"
STRANGER = ("nobody", "whom we know")
TOKEN_PATHS = ".*/(auth|token)"

TRIALS = [
    pytest.param(registry, state, policy, table, id=f"{registry.name}-{state}{', lapsed' * (policy == LAPSED)}")
    for registry, state, policy, table in (
        (world.QUAY, "up", FRESH, matrix.TOKENS_UP),
        (world.QUAY, "up", LAPSED, matrix.TOKENS_UP),
        (world.QUAY, "slow", LAPSED, matrix.TOKENS_SLOW),
        (world.QUAY, "blackholed", LAPSED, matrix.TOKENS_AWAY),
        (world.QUAY, "throttled", LAPSED, matrix.TOKENS_THROTTLED),
        (world.QUAY, "no tokens", LAPSED, matrix.NO_TOKENS),
        (world.DOCKER_HUB, "up", LAPSED, matrix.TOKENS_UP),
        (world.DOCKER_HUB, "unplugged", LAPSED, matrix.TOKENS_AWAY),
        (world.DOCKER_HUB, "sick", LAPSED, matrix.TOKENS_THROTTLED),
        (world.DOCKER_HUB, "no tokens", LAPSED, matrix.NO_TOKENS),
        (world.BASIC, "up", FRESH, matrix.BASIC_FRESH),
        (world.BASIC, "up", LAPSED, matrix.BASIC_UP),
        (world.BASIC, "slow", LAPSED, matrix.BASIC_UP),
        (world.BASIC, "blackholed", LAPSED, matrix.BASIC_AWAY),
        (world.BASIC, "throttled", LAPSED, matrix.BASIC_THROTTLED),
    )
]


@dataclass(frozen=True, slots=True)
class Shop:
    """A box that has served everybody what is theirs, at each registry."""

    box: Entrepot
    wire: Wire
    stocks: dict[str, Stock]
    expired: dict[str, Shown]  # by repository: a token that A had, and that is good no more

    def pull(self, lines: Lines, stock: Stock, name: str, login: tuple[str, str]) -> dict[str, Shown]:
        """Everything that is theirs or everybody's; what they have shown, by repository."""
        shown: dict[str, Shown] = {}
        columns = ("public", f"{name}'s", f"both,in-{name}'s")
        for content in (*(stock.contents[column] for column in columns), *([stock.naming] if name == "B" else [])):
            found = way_in(lines, content.repository, login)
            assert isinstance(found, dict), found
            shown[content.repository.path] = found
            for request in content.requests:
                reply = ask(lines, content, request, found)
                assert request.got(reply) == "served", (name, content.repository, request, reply)
        return shown

    def admit(self, lines: Lines, stock: Stock, of_a: tuple[str, str] = A) -> dict[str, Shown]:
        """A and B pull until the box knows that they may, and that not everybody may; what A shows."""
        for name, login in (("A", of_a), ("B", B)):
            shown = self.pull(lines, stock, name, login)
            repository = stock.repositories[f"{name}'s"]
            wait_for(lambda of=repository: self.explain(of)["readers"]["public"] is False, "a look")  # type: ignore[misc]
            self.pull(lines, stock, name, login)
            if name == "A":
                earlier = shown
        return earlier

    def policy(self, text: str) -> None:
        """From now on. A no-op is a reload too."""
        said = self.box.daemon.output().count("configuration reloaded")
        self.box.write_config(text)
        self.box.reload()
        wait_for(lambda: self.box.daemon.output().count("configuration reloaded") >= said + WORKERS, "a reload", 20)

    def down(self) -> dict[str, dict[str, Any]]:
        """By origin: what is known to be in trouble."""
        found: dict[str, dict[str, Any]] = json.loads(self.box.command("stats", "--json"))["down"]
        return found

    def poke(self, lines: Lines, stock: Stock) -> None:
        """Ask each of its hosts for what nobody has an answer to but itself."""
        registry, repository = stock.registry, stock.repositories["public"]
        lines.ask(registry.host, repository.target("manifests/absent"))
        if isinstance(registry.auth, world.TokenService):
            lines.ask(registry.auth.host, f"{registry.auth.path}?service={registry.auth.service}", basic(STRANGER))

    def settle(self, lines: Lines, stock: Stock, name: str) -> None:
        """Until the box knows for sure that upstream is in that state."""
        auth, host = stock.registry.auth, stock.registry.host
        token = auth.host if isinstance(auth, world.TokenService) else host
        if name == "no tokens" and token == host:
            return  # the host as such is well
        origins = {f"https://{token}", *([] if name == "no tokens" else [f"https://{host}"])}

        def knows() -> bool:
            self.poke(lines, stock)
            down = self.down()
            if name == "up":
                return not down and all(self.is_asked(stock) for _ in range(TRIES))
            return all(down.get(each, {}).get("confirmed") for each in origins)

        wait_for(knows, f"the box to know: {name}", 40)

    def is_asked(self, stock: Stock) -> bool:
        """Whether whoever takes this new connection passes a login on, and gives out no token of the box's own."""
        with closing(Lines(self.wire)) as lines:
            shown = way_in(lines, stock.repositories["A's"], A)
        return isinstance(shown, dict) and OURS not in shown["Authorization"]

    def explain(self, repository: world.Repository) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.box.command("explain", "--json", repository.image))
        return found


@pytest.fixture(scope="module")
def shop(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("matrix")
    box = Entrepot(
        network.cache, folder, upstream.ca_file, world.CACHE_SECOND, entrepot.certs, listen=f"workers = {WORKERS}"
    )
    box.start()
    try:
        wire = Wire(network.laptop, box.ca_file, box.address)
        stocks = {each.name: stock(upstream, each) for each in (world.QUAY, world.DOCKER_HUB, world.BASIC)}
        shop = Shop(box, wire, stocks, {})
        with closing(Lines(wire)) as lines:
            for each in stocks.values():
                with upstream.fault(path=TOKEN_PATHS, life=SHORT):
                    shop.expired.update(shop.pull(lines, each, "A", A_FIRST))
            for each in stocks.values():
                shop.admit(lines, each, A_FIRST)
        with upstream.password(world.ALICE, A[1]):
            yield shop
    finally:
        box.stop()


def ask(lines: Lines, content: Content, request: Request, shown: Shown) -> Reply:
    target = content.repository.target(request.rest)
    return lines.ask(content.repository.host, target, {**request.headers, **shown}, method=request.method)


@contextmanager
def state(name: str, stock: Stock, network: Network, upstream: Upstream) -> Iterator[None]:
    """Upstream is like that."""
    registry = stock.registry
    token = registry.auth.host if isinstance(registry.auth, world.TokenService) else registry.host
    with ExitStack() as stack:
        match name:
            case "slow":
                for host in {registry.host, token}:
                    stack.enter_context(upstream.fault(host=host, delay=SLOW))
            case "throttled" | "sick":
                for host in {registry.host, token}:
                    status = 429 if name == "throttled" else 503
                    stack.enter_context(upstream.fault(host=host, status=status))
            case "no tokens" if token == registry.host:
                stack.enter_context(upstream.fault(host=token, path=TOKEN_PATHS, status=503))
            case "no tokens":
                stack.enter_context(upstream.fault(host=token, hold=True))
            case "blackholed":
                stack.enter_context(network.blackholed())
            case "unplugged":
                stack.enter_context(network.unplugged())
        yield


class Trial:
    """One table, at one registry, in one state."""

    def __init__(self, shop: Shop, stock: Stock, expected: matrix.Verdicts, direct: Lines | None) -> None:
        self._shop, self._stock, self._expected, self._direct = shop, stock, expected, direct
        self.wrong: list[str] = []

    def _shown(self, lines: Lines, row: str, repository: world.Repository, earlier: dict[str, Shown]) -> Shown | Reply:
        match row:
            case "nobody":
                return {}
            case "anonymous":
                return way_in(lines, repository)
            case "A,earlier":
                return earlier.get(repository.path, earlier[self._stock.repositories["A's"].path])
            case "A,expired":
                expired = self._shop.expired
                return expired.get(repository.path, next(iter(expired.values())))
            case _:
                found = way_in(lines, repository, LOGINS[row], BEGIN.get(row, "ping"))
                return found or way_in(lines, repository, LOGINS[row])  # what lists will be asked for

    def run(self, lines: Lines, earlier: dict[str, Shown], at_once: int) -> None:
        """All of its cells."""
        logins = [(row, each) for row in self._expected for each in self._stock.repositories.values()]
        cells = [
            (row, column, request)
            for row in self._expected
            for column, content in self._stock.contents.items()
            for request in content.requests
        ]

        def log_in(login: tuple[str, world.Repository]) -> Shown | Reply:
            return self._shown(lines, *login, earlier=earlier)

        def try_out(cell: tuple[str, str, Request]) -> None:
            row, column, request = cell
            content = self._stock.contents[column]
            self._check(lines, row, column, content, request, shown[row, content.repository.path])

        with ThreadPoolExecutor(at_once) as pool:
            found = list(pool.map(log_in, logins))
            shown = {(row, each.path): what for (row, each), what in zip(logins, found, strict=True)}
            list(pool.map(try_out, cells))
        for (row, path), what in shown.items():
            expected = self._expected[row]["login"]
            if expected != "-" and expected != (str(what.status) if isinstance(what, Reply) else "200"):
                self.wrong.append(f"{row}: login at {path}: expected {expected}, got {what}")

    def _check(
        self, lines: Lines, row: str, column: str, content: Content, request: Request, shown: Shown | Reply
    ) -> None:
        headers = basic(LOGINS[row]) if isinstance(shown, Reply) else shown
        cell, _, lists = self._expected[row][column].partition("|")
        expected = lists if lists and request.is_list else cell
        reply = ask(lines, content, request, headers)
        got = request.got(reply)
        if expected == "or" and got in {"served", "401"}:
            return
        if got != expected:
            said = reply.headers.get("WWW-Authenticate") or reply.body[:120]
            self.wrong.append(f"{row}: {column}: {request.name}: expected {expected}, got {got} ({said!r})")
        elif got != "served" and self._direct is not None:
            theirs = ask(self._direct, content, request, headers)
            if refusal(reply) != refusal(theirs):
                self.wrong.append(
                    f"{row}: {column}: {request.name}: refused by {refusal(reply)}, not {refusal(theirs)}"
                )


def refusal(reply: Reply) -> tuple[object, ...]:
    return reply.status, reply.headers["WWW-Authenticate"], reply.headers["Content-Type"], reply.body


@pytest.mark.parametrize(("registry", "name", "policy", "table"), TRIALS)
def test_who_gets_what(
    registry: world.Registry,
    name: str,
    policy: str,
    table: str,
    shop: Shop,
    direct_wire: Wire,
    network: Network,
    upstream: Upstream,
) -> None:
    stock = shop.stocks[registry.name]
    with ExitStack() as stack:
        lines, direct = (stack.enter_context(closing(Lines(each))) for each in (shop.wire, direct_wire))
        earlier = shop.admit(lines, stock)
        shop.policy(policy)
        trial = Trial(shop, stock, matrix.verdicts(table), direct if name == "up" else None)
        with upstream.watched() as seen:
            with state(name, stock, network, upstream):
                if name != "slow":
                    shop.settle(lines, stock, name)
                trial.run(lines, earlier, AT_ONCE.get(name, FEW))
            shop.settle(lines, stock, "up")
    assert not trial.wrong, "\n".join(["wrong cells:", *sorted(trial.wrong)])
    if name != "up":  # where refusals are compared
        assert [each for each in seen if each.blob and each.method == "GET" and 200 <= each.status < 400] == []
