"""A large image over an upstream that breaks off all the time and a cache whose fetching process dies: nobody notices.

Rules 1 and 2, with real clients, on the first try. `ENTREPOT_LAB_MIB` sets the size of the image, 64 MiB by default;
the upstream cuts every connection after a twentieth of it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, Clients
from tests.lab.net import wait_for
from tests.lab.product import Entrepot, alive, kill
from tests.lab.store import Store
from tests.lab.upstream import Upstream

pytestmark = pytest.mark.lab

SIZE = int(os.environ.get("ENTREPOT_LAB_MIB", "64")) * images.MIB
SHARES = (8, 4, 2, 1, 1)  # sixteenths: the layers
CUT = SIZE // 20
RATE = max(SIZE // 6, 8 * images.MIB)  # bytes per second of one connection: slow enough to be caught in the act
KILLS = 2


@contextmanager
def fetchers_killed(entrepot: Entrepot, upstream: Upstream) -> Iterator[list[int]]:
    """Kills whoever fetches, twice while the block runs, once a twentieth more has come in each time."""
    store = Store(entrepot.store, lambda digest: upstream.storage(world.GHCR))
    killed: list[int] = []
    over = threading.Event()

    def hunt() -> None:
        before = sum(store.parts().values())
        while len(killed) < KILLS and not over.wait(0.02):
            writers = store.writers()
            there = sum(store.parts().get(digest, 0) for digest in writers)
            if writers and there > before + CUT:
                victim = next(iter(writers.values()))
                if alive(victim):
                    kill(victim)
                    killed.append(victim)
                    before = there

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        over.set()
        hunter.join()


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_pulls_on_the_first_try(
    kind: str, builder: Clients, entrepot: Entrepot, upstream: Upstream
) -> None:
    image = images.build([share * SIZE // 16 for share in SHARES], "oci")
    repository = upstream.publish(world.GHCR, image)
    fault = {"host": str(world.GHCR.cdn), "cut_after": CUT, "rate": RATE}
    with upstream.watched() as seen, upstream.fault(**fault), fetchers_killed(entrepot, upstream) as killed:
        builder[kind].pull(repository.image)
    assert builder[kind].held(repository.image).is_same_as(image)
    builder[kind].forget()
    assert len(killed) == KILLS
    wait_for(lambda: len(entrepot.serving()) > 1, "workers in place of those killed")
    fetched = sum(each.sent for each in seen.to(str(world.GHCR.cdn)))
    total = sum(len(layer.blob.data) for layer in image.layers)
    assert fetched <= total + len(seen) * images.MIB  # what is on disk is not fetched again
