"""Everything an upstream can do wrong with a blob: what clients, the upstream and the store see of it.

The table is in `misbehaviour`. Each of its rows is met by one client, by eight at once, and by eight of which each
worker surely has four. DESIGN rule 1: nobody gets a clean end on wrong bytes, and nothing wrong is kept. Rule 2: what
can be resumed is, no byte is fetched twice, and who cannot be served to the end is closed short by FIN, never reset.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.lab import images, world
from tests.lab.misbehaviour import CUT, HALF, LOST, READ_TIMEOUT, ROWS, SIZE, Fault, Row, once
from tests.lab.net import Network, in_parallel, wait_for
from tests.lab.product import Entrepot
from tests.lab.upstream import Request, Requests, Upstream
from tests.lab.wire import Listener, Wire

pytestmark = pytest.mark.lab

CLIENTS, WORKERS = 8, 2
MOVED = 302
CALM = 15
"""Looks at the store, 0.02 s apart, in which nothing is coming in."""
ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}


@pytest.fixture(scope="module")
def impatient(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    """An Entrepot with two workers that notices a stall soon."""
    folder = tmp_path_factory.mktemp("impatient")
    product = Entrepot(
        network.cache,
        folder,
        upstream.ca_file,
        world.CACHE_SECOND,
        entrepot.certs,
        listen=f"workers = {WORKERS}",
        upstream=f'read_timeout = "{READ_TIMEOUT}s"',
    )
    product.start()
    yield product
    product.stop()


class Scene:
    """One new blob, its upstream and its clients."""

    def __init__(self, product: Entrepot, network: Network, upstream: Upstream, gate: Path) -> None:
        self.product, self.upstream, self.gate = product, upstream, gate
        self.wire = Wire(network.laptop, product.ca_file, product.address)
        self.blob = images.Blob.of(os.urandom(SIZE))
        image = images.build([images.Layer(self.blob, self.blob.digest)], "oci")
        self.repository = upstream.publish(world.QUAY, image)
        self.headers = self.wire.authorization(self.repository)
        self._log = len(product.daemon.output())

    def learn_the_size(self) -> None:
        target = self.repository.target("manifests/1")
        assert self.wire.ask(self.repository.host, target, {**self.headers, **ANY_MANIFEST}).status == 200

    @contextmanager
    def misbehaving(self, row: Row) -> Iterator[None]:
        with ExitStack() as stack:
            for redirect in (*row.redirects, {}):
                place = {"host": world.QUAY.host, "path": f"/v2/.*/blobs/{self.blob.digest}", "direct": True}
                stack.enter_context(self.upstream.fault(method="GET", **place, **redirect))
            first, *others = row.faults or ({"count": 1},)
            closed: Fault = {"hold_until": str(self.gate)}
            if row.gate is not None:
                closed = {"drip_after": row.gate, "drip_until": str(self.gate)}
            for fault in ({**first, **closed}, *others):
                stack.enter_context(self.upstream.fault(method="GET", path=f"/blobs/{self.blob.digest}", **fault))
            yield

    def clients(self, constellation: str) -> list[Listener]:
        count = 1 if constellation == "one" else CLIENTS
        if constellation == "spread":
            return self._spread(count // WORKERS)
        return [Listener(self.wire, self.repository.host) for _ in range(count)]

    def _spread(self, each: int) -> list[Listener]:
        """The kernel deals connections out by chance: as many as it takes until every worker has `each`."""
        found: list[Listener] = []
        held = Counter(dict.fromkeys(self.product.serving(), 0))
        assert len(held) == WORKERS
        while min(held.values()) < each:
            listener = Listener(self.wire, self.repository.host)
            worker = self.product.worker_of(listener.socket)
            held[worker] += 1
            if held[worker] <= each:
                found.append(listener)
            else:
                listener.close()
            assert held.total() < 100, held
        return found

    def fetch(self, listeners: list[Listener], row: Row) -> None:
        """All at once; the upstream goes on when all are on board."""

        def aboard(listener: Listener) -> bool:
            if listener.end is not None:
                return True
            if row.gate is not None:
                return bool(listener.body)
            return listener.asked and not self.product.unread(listener.socket)

        def open_gate() -> None:
            wait_for(lambda: all(map(aboard, listeners)), "clients to be on board")
            self.gate.touch()

        target = self.repository.target(f"blobs/{self.blob.digest}")
        gets: list[Callable[[], None]] = [partial(each.get, target, self.headers) for each in listeners]
        in_parallel([open_gate, *gets])

    def again(self) -> tuple[Listener, list[Request]]:
        """One more client; and what it cost the content network."""
        listener = Listener(self.wire, self.repository.host)
        with self.upstream.watched() as seen:
            listener.get(self.repository.target(f"blobs/{self.blob.digest}"), self.headers)
        return listener, self.content(seen)

    def content(self, seen: Requests) -> list[Request]:
        return [each for each in seen if each.path == f"/blobs/{self.blob.digest}" and each.method == "GET"]

    def reports(self) -> list[str]:
        """What the log says of wrong bytes."""
        lines = self.product.daemon.output()[self._log :].splitlines()
        return [line for line in lines if "wrong bytes registry=" in line and self.blob.digest in line]

    def settle(self, row: Row) -> None:
        """Return when the blob is held; or, where it never is, when nobody tries any more."""
        looks = 0

        def is_settled() -> bool:
            nonlocal looks
            looks = 0 if self.product.incoming(self.blob.digest) else looks + 1
            if row.for_ever:
                return looks > CALM and len(self.reports()) >= row.wrong
            return self.held() and looks > 0

        wait_for(is_settled, "the end of the last try")

    def held(self) -> bool:
        return self.product.held(self.blob.digest).exists()


@pytest.fixture
def scene(impatient: Entrepot, network: Network, upstream: Upstream, tmp_path: Path) -> Scene:
    return Scene(impatient, network, upstream, tmp_path / "gate")


@pytest.mark.parametrize("constellation", ["one", "herd", "spread"])
@pytest.mark.parametrize("name", ROWS)
def test_fault(name: str, constellation: str, scene: Scene) -> None:
    check(ROWS[name], constellation, scene)


@pytest.mark.parametrize("name", ["cut in the middle", "wrong byte", "length too small, size unknown"])
def test_workers_that_fetch_themselves(name: str, scene: Scene) -> None:
    """As they do when the process that should is not there: one of them fetches, and the others read along."""
    with scene.product.nobody_fetches():
        check(ROWS[name], "spread", scene)


def check(row: Row, constellation: str, scene: Scene) -> None:
    alone = constellation == "one"
    if row.known:
        scene.learn_the_size()
    listeners = scene.clients(constellation)
    with scene.upstream.watched() as seen, scene.misbehaving(row):
        scene.fetch(listeners, row)
        for listener in listeners:
            check_client(listener, scene.blob, row)
        scene.settle(row)
    if row.ends == "short":
        assert any(each.end == "fin" for each in listeners)
    check_reports(scene, row, alone=alone)
    check_upstream(scene, row, seen, alone=alone)
    check_store(scene, row)
    listener, cost = scene.again()
    check_whole(listener, scene.blob)
    assert [offset(each) for each in cost] == ([0] if row.for_ever else [])


def check_whole(listener: Listener, blob: images.Blob) -> None:
    assert (listener.status, listener.end, len(listener.body)) == (200, "whole", SIZE)
    assert listener.body == blob.data, "a clean end on wrong bytes"


def check_client(listener: Listener, blob: images.Blob, row: Row) -> None:
    """Rule 1 for everybody, and what the row says for whoever read along."""
    length = int(listener.headers.get("Content-Length", -1))
    assert listener.headers["Content-Encoding"] is None
    if row.ends == "error" or (row.ends == "nothing" and listener.status != 200):
        assert (listener.status // 100, listener.end) == (5, "whole"), len(listener.body)
        assert json.loads(listener.body)["errors"]
        return
    assert listener.status == 200, listener.body[:200]
    assert listener.headers["Docker-Content-Digest"] == blob.digest
    assert listener.headers["Content-Type"] == "application/octet-stream"
    if row.ends == "whole":
        assert length == SIZE or (length == -1 and not row.known)
    if row.ends == "whole" or (row.ends == "short" and listener.end == "whole"):  # may have come when all was right
        check_whole(listener, blob)
    else:
        assert listener.end == "fin"
        assert length == -1 or len(listener.body) < length


def rounds(row: Row, *, alone: bool) -> int:
    """How often all tries may be made: where nothing helps, by every worker, and again for who has not read a byte."""
    if not row.for_ever:
        return 1
    return (1 if alone else WORKERS) * (2 if row.gate is None else 1)


def check_reports(scene: Scene, row: Row, *, alone: bool) -> None:
    """A line per try that names registry, digest and size, and says what happens next."""
    reports = scene.reports()
    assert row.wrong <= len(reports) <= row.wrong * rounds(row, alone=alone), reports
    for line in reports:
        assert re.search(rf" registry={world.QUAY.name} digest={scene.blob.digest} size=(\d+|None) ", line)
        assert re.search(r"once more from the start|giving up", line)


def check_upstream(scene: Scene, row: Row, seen: Requests, *, alone: bool) -> None:
    """As many GETs as it takes, each for the bytes that are missing, and a fresh redirect when the last is refused."""
    gets = scene.content(seen)
    starts = [offset(each) for each in gets]
    most = rounds(row, alone=alone)
    assert len(row.starts) <= len(starts) <= most * len(row.starts), starts
    for start, expected in zip(starts, [*row.starts] * most, strict=False):
        assert max(0, expected - LOST) <= start <= expected, starts
    redirects = seen.blob_gets().count(scene.blob.digest)
    from_scratch = sum(offset(each) == 0 and each.status != MOVED for each in gets)
    refused = row.astray + sum(each.status >= 400 for each in gets)
    if not row.for_ever:
        assert redirects == from_scratch + refused, [(offset(each), each.status) for each in gets]
        twice = sum(each.sent for each in gets) - SIZE
        assert twice <= row.again


def check_store(scene: Scene, row: Row) -> None:
    assert scene.product.incoming(scene.blob.digest) == []
    if row.for_ever:
        assert not scene.held()
    else:
        assert scene.product.held(scene.blob.digest).read_bytes() == scene.blob.data


def offset(request: Request) -> int:
    """The byte from which on it asks."""
    found = re.fullmatch(r"bytes=(\d+)-\d*", request.headers.get("range", "bytes=0-"))
    assert found, request.headers
    return int(found[1])


GONE = Row([CUT, {"status": 403}], [], redirects=[once(), {"status": 404, "body": "no such blob"}])
IN_TROUBLE = Row([CUT, {"status": 503}], [])


@pytest.mark.parametrize(("row", "constellation"), [(GONE, "spread"), (IN_TROUBLE, "one")], ids=["gone", "in trouble"])
def test_all_is_lost(row: Row, constellation: str, scene: Scene) -> None:
    """Everybody is closed short by FIN; what has come is kept, and the next client's transfer goes on from there."""
    scene.learn_the_size()
    listeners = scene.clients(constellation)
    with scene.misbehaving(row):
        scene.fetch(listeners, row)
    for listener in listeners:
        assert (listener.status, listener.end) == (200, "fin")
        assert HALF - LOST <= len(listener.body) <= HALF
        assert listener.body == scene.blob.data[: len(listener.body)]
    assert not scene.held()
    size = scene.product.part(scene.blob.digest).stat().st_size
    assert size > len(listeners[0].body)
    listener, cost = scene.again()
    check_whole(listener, scene.blob)
    assert [offset(each) for each in cost] == [size]
    assert scene.reports() == []


def test_a_part_that_is_complete(scene: Scene) -> None:
    """As a crash before the commit leaves it: nothing is missing, and upstream has 416 for who asks for more."""
    part = scene.product.part(scene.blob.digest)
    part.write_bytes(scene.blob.data)
    listener, cost = scene.again()
    check_whole(listener, scene.blob)
    assert sum(each.sent for each in cost) == 0
    check_store(scene, Row([], []))
