"""A refusal does not tell whether the box holds what was asked for (DESIGN rule 3): not by its words, not by its time.

Two kinds of digests are asked for in turn: held, but of a repository that the asker may not read; and held by nobody.
What is compared are distributions, and only a difference that chance does not bring about counts.
"""

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter

import pytest
from tests.lab import images, world
from tests.lab.contents import ANY_MANIFEST
from tests.lab.identities import Lines, way_in
from tests.lab.net import Network
from tests.lab.product import Entrepot
from tests.lab.upstream import Requests, Upstream
from tests.lab.wire import Reply, Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SAMPLES = 150  # of each kind; each digest is asked for once, as a spy would
CHANCE = 1e-6  # that distributions which are the same look so different
SHARE = 0.15  # by which their medians have to differ beside
A, B = (world.ALICE, world.ALICE_FIRST), (world.BOB, world.BOBS)


def unlikely(one: Sequence[float], other: Sequence[float]) -> float:
    """The chance that two samples of one distribution differ so much: Mann and Whitney's test, two-sided."""
    ranked = sorted((value, which) for which, values in enumerate((one, other)) for value in values)
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)  # ties of clocks so fine: none
    n, m = len(one), len(other)
    z = (ranks - n * (n + m + 1) / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def test_the_test_tells() -> None:
    chance = random.Random(1)
    one, other = ([chance.gauss(100, 10) for _ in range(SAMPLES)] for _ in range(2))
    assert unlikely(one, other) > 0.01
    assert unlikely(one, [value + 10 for value in other]) < CHANCE


@dataclass(frozen=True, slots=True)
class Spied:
    """What A has, held by the box, and where B looks for it."""

    blobs: list[str]
    manifests: list[str]
    repositories: dict[str, world.Repository]


@pytest.fixture(scope="module")
def wire(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wire]:
    """Through a box of this file's."""
    folder = tmp_path_factory.mktemp("tells")
    box = Entrepot(network.cache, folder, upstream.ca_file, world.CACHE_SECOND, entrepot.certs)
    box.start()
    yield Wire(network.laptop, box.ca_file, box.address)
    box.stop()


@pytest.fixture(scope="module")
def spied(wire: Wire, upstream: Upstream) -> Spied:
    """A has pulled everything."""
    image = images.build([images.KIB] * SAMPLES, "oci")
    repository = upstream.publish(world.QUAY, image, private=True, owner=world.ALICE)
    others = [images.build([image.layers[0]], "oci") for _ in range(SAMPLES)]
    for each in others:
        upstream.move(repository, each, "more")
    own = upstream.publish(world.QUAY, images.build(), private=True, owner=world.BOB)
    blobs, manifests = list(image.layer_digests), [each.digest for each in others]
    with closing(Lines(wire)) as lines:
        shown = way_in(lines, repository, A)
        assert isinstance(shown, dict)
        wanted = [f"manifests/{image.digest}", *(f"blobs/{each}" for each in blobs)]
        for rest in (*wanted, *(f"manifests/{each}" for each in manifests)):
            reply = lines.ask(repository.host, repository.target(rest), {**ANY_MANIFEST, **shown})
            assert reply.status == 200, (rest, reply)
    return Spied(blobs, manifests, {"another's repository": repository, "one's own repository": own})


class Found:
    """What was seen of one kind of digests."""

    def __init__(self, digests: Sequence[str]) -> None:
        self.digests = digests
        self.times: list[float] = []
        self.said: set[object] = set()

    def note(self, digest: str, reply: Reply, seconds: float) -> None:
        self.times.append(seconds)
        fields = reply.headers["WWW-Authenticate"], reply.headers["Content-Type"]
        self.said.add((reply.status, *fields, reply.body.replace(digest.encode(), b"DIGEST")))

    def asked(self, seen: Requests) -> set[object]:
        """What the registry was asked for each of them."""
        found: dict[str, list[object]] = {each: [] for each in self.digests}
        for request in seen:
            if (digest := request.path.rpartition("/")[2]) in found:
                found[digest].append((request.method, request.status))
        return {tuple(sorted(each)) for each in found.values()}  # type: ignore[type-var]  # pairs of str and int


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("where", ["another's repository", "one's own repository"])
@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_what_is_held_is_refused_like_what_is_not(
    kind: str, where: str, method: str, spied: Spied, wire: Wire, upstream: Upstream
) -> None:
    repository = spied.repositories[where]
    held = Found(spied.blobs if kind == "blobs" else spied.manifests)
    absent = Found([images.digest_of(random.randbytes(16)) for _ in held.digests])
    with closing(Lines(wire)) as lines:
        shown = way_in(lines, repository, B)
        assert isinstance(shown, dict)
        headers = {**ANY_MANIFEST, **shown}
        with upstream.watched() as seen:
            for pair in zip(held.digests, absent.digests, strict=True):
                for found, digest in random.sample([*zip((held, absent), pair, strict=True)], 2):
                    start = perf_counter()
                    reply = lines.ask(repository.host, repository.target(f"{kind}/{digest}"), headers, method=method)
                    found.note(digest, reply, perf_counter() - start)
    medians = [statistics.median(each.times) for each in (held, absent)]
    chance = unlikely(held.times, absent.times)
    assert held.said == absent.said
    assert {each[0] for each in held.said} <= {401, 404}  # type: ignore[index]
    assert held.asked(seen) == absent.asked(seen)
    assert chance > CHANCE or max(medians) < min(medians) * (1 + SHARE), (chance, medians)
