"""No secret is anywhere but in memory (DESIGN rule 3): not in a log, not in the store, not in what commands print.

Clients show everything that proves who they are, in every way there is, rightly and wrongly, with upstream there, away
and in trouble; processes crash meanwhile. Then every byte that the box has left anywhere is looked through.
"""

import base64
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus, urlencode

import pytest
from tests.lab import world
from tests.lab.contents import ANY_MANIFEST, Stock, stock
from tests.lab.identities import Lines, basic, way_in
from tests.lab.net import HOME, Network, wait_for
from tests.lab.product import Entrepot, alive
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

WORKERS = 2
SHORTEST = 12  # characters, of what is looked for: shorter texts are found by chance
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def fresh(name: str) -> str:
    """One that is nowhere else, with characters that every encoding changes."""
    return f"{name}~{os.urandom(9).hex()} /+%&=ü"


@dataclass(slots=True)
class Secrets:
    """All that has proved, or was to prove, who somebody is, by what it is."""

    known: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str, secret: str, user: str = "") -> str:
        """Returns it."""
        self.known.setdefault(name, set()).add(secret)
        if user:
            self.known[name].add(f"{user}:{secret}")
        return secret

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Each as it may be written, with what it is."""
        for name, secrets in self.known.items():
            for secret in secrets:
                raw = secret.encode()
                coded = {
                    json.dumps(secret)[1:-1],
                    repr(secret)[1:-1],
                    quote(secret),
                    quote(secret, ""),
                    quote_plus(secret),
                }
                texts = {raw, raw.hex().encode(), *(text.encode() for text in coded)}
                for begin in range(3):  # wherever in a longer text it begins
                    middle = base64.b64encode(b"\0" * begin + raw)[4 if begin else 0 : -4]
                    texts |= {middle, middle.translate(bytes.maketrans(b"+/", b"-_"))}
                yield from ((name, text) for text in texts if len(text) >= SHORTEST)


class Spy:
    """Shows all kinds of secrets to the box, and writes down which."""

    def __init__(self, wire: Wire, lines: Lines, secrets: Secrets) -> None:
        self._wire, self._lines, self._secrets = wire, lines, secrets

    def login(self, stock: Stock, user: str, password: str) -> None:
        """Pulls what there is with it, as far as it goes."""
        self._secrets.add("password", password, user)
        for repository in stock.repositories.values():
            shown = way_in(self._lines, repository, (user, password))
            headers = shown if isinstance(shown, dict) else basic((user, password))
            for value in headers.values():
                token = value.partition(" ")[2]
                for part in (token, *re.split("[.~]", token)[1:]):  # what comes first in them is no secret
                    self._secrets.add("token", part)
            for rest in ("manifests/1", "tags/list", "manifests/absent"):
                self._lines.ask(repository.host, repository.target(rest), {**ANY_MANIFEST, **headers})
            image = stock.contents["A's"].requests[-1].rest
            self._lines.ask(repository.host, repository.target(image), headers)

    def forms(self, service: world.TokenService, repository: world.Repository) -> None:
        """The other ways to ask a token service, and some that are none."""
        asked = {"service": service.service, "scope": f"repository:{repository.path}:pull", "client_id": "docker"}
        for name, more in (
            ("form", {"grant_type": "password", "username": world.ALICE, "password": world.ALICE_FIRST}),
            ("wrong form", {"grant_type": "password", "username": world.ALICE, "password": fresh("wrong")}),
            ("identity token", {"grant_type": "refresh_token", "refresh_token": fresh("refresh")}),
            ("access token", {"grant_type": "access_token", "access_token": fresh("access")}),
        ):
            self._secrets.add(name, [*more.values()][-1])
            self._ask(service.host, service.path, FORM, "POST", urlencode({**asked, **more}))
        secret = self._secrets.add("in a query", fresh("query"))
        self._ask(service.host, f"{service.path}?{urlencode({**asked, 'password': secret})}", {})
        self._ask(service.host, f"{service.path}x?{urlencode({'token': secret})}", {})  # passes through

    def oddities(self, repository: world.Repository) -> None:
        """What a registry is shown that makes no sense to it, and requests that are not pulls."""
        secret = self._secrets.add("nonsense", fresh("nonsense"))
        coded = base64.b64encode(secret.encode()).decode()
        for shown in (f"Bearer {coded}", f"Basic {coded}", f"Negotiate {coded}", coded, f"Bearer {coded * 2000}"):
            for method, rest in (("GET", "manifests/1"), ("POST", "blobs/uploads/"), ("DELETE", "manifests/1")):
                self._ask(repository.host, repository.target(rest), {"Authorization": shown}, method)
        self._ask(repository.host, f"https://{quote(secret, '')}@{repository.host}/v2/", {"Host": repository.host})
        self._ask(repository.host, repository.target("manifests/1"), {"Cookie": f"session={coded}"})

    def _ask(self, host: str, target: str, headers: dict[str, str], method: str = "GET", body: str = "") -> None:
        with suppress(OSError, ValueError):
            self._wire.ask(host, target, headers, method=method, body=body.encode() or None)


@pytest.fixture(params=["info", "debug"])
def box(
    request: pytest.FixtureRequest,
    network: Network,
    upstream: Upstream,
    entrepot: Entrepot,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Entrepot]:
    folder = tmp_path_factory.mktemp("secrecy")
    env = {"ENTREPOT_LOG_LEVEL": request.param, "PYTHONFAULTHANDLER": "1"}
    listen = f"workers = {WORKERS}"
    place = (network.cache, folder, upstream.ca_file, world.CACHE_SECOND, entrepot.certs)
    box = Entrepot(*place, listen=listen, env=env)
    (folder / "password").write_text(world.BOBS)
    (folder / "password").chmod(0o600)
    credentials = f'{{ username = "{world.BOB}", password_file = "{folder}/password" }}'
    box.write_config(f'credentials = {credentials}\nshare = "public"\n')  # of the last registry, which is the Basic one
    box.start()
    yield box
    box.stop()


def crash(box: Entrepot, wire: Wire) -> None:
    """A worker, and the process that fetches, with what they have in memory."""
    roles = box.roles()
    fetching = next(pid for pid, role in roles.items() if role == "fetch")
    for pid, number in ((box.serving()[0], signal.SIGSEGV), (fetching, signal.SIGABRT)):
        os.kill(pid, number)
        wait_for(lambda pid=pid: not alive(pid), f"end of process {pid}")  # type: ignore[misc]

    def serves() -> bool:
        with suppress(OSError):
            return wire.ask(world.QUAY.host, "/v2/").status == 401 and sorted(box.roles().values()) == all_of_them
        return False

    all_of_them = sorted(roles.values())
    wait_for(serves, "all processes again")


def left(box: Entrepot, network: Network, images: list[str]) -> Iterator[tuple[str, bytes]]:
    """Everything that there is of the box: where, and its bytes."""
    yield "log", box.daemon.log.read_bytes()
    for place in (box.store, network.cache.path(HOME / "tmp"), network.cache.path(HOME / "home")):
        for file in place.rglob("*"):
            with suppress(FileNotFoundError):
                if file.is_file() and not file.is_symlink():
                    yield str(file.relative_to(place)), file.read_bytes()
    shown = [
        ("stats",),
        ("stats", "--json"),
        ("images",),
        ("images", "--json"),
        ("config", "show"),
        ("config", "check"),
    ]
    shown += [(*explain, image) for image in images for explain in (("explain",), ("explain", "--json"))]
    for argv in shown:
        yield " ".join(argv), box.command(*argv).encode()


def found(places: list[tuple[str, bytes]], secrets: Secrets) -> set[tuple[str, str]]:
    """Which kinds of secrets are where."""
    return {(name, place) for name, text in secrets.forms() for place, data in places if text in data}


def test_no_secret_is_left_anywhere(box: Entrepot, network: Network, upstream: Upstream) -> None:
    secrets = Secrets({"the box's own": {world.BOBS}})
    wire = Wire(network.laptop, box.ca_file, box.address)
    stocks = [stock(upstream, each) for each in (world.QUAY, world.DOCKER_HUB, world.BASIC)]
    public = [each.repositories["public"] for each in stocks]

    def everybody(lines: Lines) -> None:
        spy = Spy(wire, lines, secrets)
        for each in stocks:
            for user, password in (
                (world.ALICE, world.ALICE_FIRST),
                (world.ALICE, fresh("wrong")),
                (world.BOB, world.BOBS),
            ):
                spy.login(each, user, password)
            spy.oddities(each.repositories["A's"])
            if isinstance(each.registry.auth, world.TokenService):
                spy.forms(each.registry.auth, each.repositories["A's"])

    with closing(Lines(wire)) as lines:
        everybody(lines)
        everybody(lines)
    crash(box, wire)
    with closing(Lines(wire)) as lines, network.unplugged():
        everybody(lines)
    with closing(Lines(wire)) as lines, upstream.fault(path=".*/(auth|token|manifests/.*)", status=503):
        everybody(lines)
    crash(box, wire)
    places = list(left(box, network, [each.image for each in public]))
    known = Secrets({"no secret": {public[0].path}})
    there = {place for _, place in found(places, known)}
    assert "log" in there
    assert {"records/cache.db", "records/cache.db-wal"} & there
    assert len(secrets.known["token"]) > 30
    assert found(places, secrets) == set()


def test_no_process_leaves_a_core_dump(entrepot: Entrepot) -> None:
    """It would hold every key and credential in memory."""
    for pid in entrepot.processes():
        (limit,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line]
        assert limit.split()[4:6] == ["0", "0"], pid
