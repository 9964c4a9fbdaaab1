"""A large image over an upstream that breaks off all the time and a cache whose fetching process dies: nobody notices.

Rules 1 and 2, with real clients, on the first try. `ENTREPOT_LAB_MIB` sets the size of the image, 64 MiB by default;
the upstream cuts every connection after a twentieth of it. Room and time grow with it: of 2048 MiB, a client holds
6 GiB in memory and is given five minutes.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, Clients
from tests.lab.net import wait_for
from tests.lab.product import Entrepot, alive, kill
from tests.lab.store import Store
from tests.lab.upstream import Requests, Upstream

SIZE = int(os.environ.get("ENTREPOT_LAB_MIB", "64")) * images.MIB
PATIENCE = 50 + SIZE / (8 * images.MIB)  # seconds for a command
SHARES = (1, 1, 2, 4, 8)  # sixteenths: the layers; the largest last, as the clients copy a layer for each one above it
CUT = SIZE // 20
RATE = max(SIZE // 6, 8 * images.MIB)  # bytes per second of one connection: slow enough to be caught in the act
KILLS = 2

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE * 2)]


@dataclass(frozen=True, slots=True)
class Kill:
    parts: Mapping[str, int]
    """Digest of every part, and its bytes on disk when the victim was gone."""
    asked: Requests
    """Of the upstream from then on; complete when the pull is over."""

    def check_resumed(self) -> None:
        """What was on disk is not fetched again."""
        for request in self.asked:
            held = self.parts.get(request.path.rpartition("/")[2])
            if held is not None and request.method == "GET" and request.host == world.GHCR.cdn:
                start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
                assert start >= held, f"{request} although {held} bytes were there"


@contextmanager
def fetchers_killed(entrepot: Entrepot, upstream: Upstream) -> Iterator[list[Kill]]:
    """Kills whoever fetches, twice while the block runs, once a twentieth more has come in each time."""
    store = Store(entrepot.store, lambda digest: upstream.storage(world.GHCR))
    kills: list[Kill] = []
    over = threading.Event()

    def hunt() -> None:
        before = sum(store.parts().values())
        while len(kills) < KILLS and not over.wait(0.02):
            writers = store.writers()
            there = sum(store.parts().get(digest, 0) for digest in writers)
            if writers and there > before + CUT:
                victim = next(iter(writers.values()))
                if alive(victim):
                    kill(victim)
                    kills.append(Kill(store.parts(), watching.enter_context(upstream.watched())))
                    before = there

    with ExitStack() as watching:
        hunter = threading.Thread(target=hunt)
        hunter.start()
        try:
            yield kills
        finally:
            over.set()
            hunter.join()


@contextmanager
def published(upstream: Upstream, entrepot: Entrepot) -> Iterator[tuple[images.Image, world.Repository]]:
    """A new image. It takes no room any more when the block is left."""
    image = images.build([share * SIZE // 16 for share in SHARES], "oci")
    try:
        yield image, upstream.publish(world.GHCR, image)
    finally:
        images.withdraw(upstream.storage(world.GHCR), image)
        for blob in image.blobs:
            entrepot.held(blob.digest).unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_pulls_on_the_first_try(
    kind: str, builder: Clients, entrepot: Entrepot, upstream: Upstream
) -> None:
    client = builder[kind]
    fault = {"host": str(world.GHCR.cdn), "cut_after": CUT, "rate": RATE}
    with published(upstream, entrepot) as (image, repository), client.machine.patient(PATIENCE):
        began = monotonic()
        try:
            with upstream.watched() as seen, upstream.fault(**fault), fetchers_killed(entrepot, upstream) as kills:
                client.pull(repository.image)
            took = monotonic() - began
            assert client.held(repository.image).is_same_as(image)
        finally:
            client.forget()
        assert len(kills) == KILLS
        for each in kills:
            each.check_resumed()
        wait_for(lambda: len(entrepot.serving()) > 1, "workers in place of those killed")
        asked = seen.to(str(world.GHCR.cdn))
        fetched, total = sum(each.sent for each in asked), sum(len(layer.blob.data) for layer in image.layers)
        cut = sum(each.sent == CUT for each in asked)
        print(f"{kind}: {took:.1f} s, {len(kills)} kills, {cut} of {len(asked)} cut, {fetched} of {total} bytes")
        assert cut > 0
        assert fetched <= total + SIZE // 5 + len(seen) * images.MIB // 4  # a kill loses what is under way
