"""Processes that are there and do nothing (stopped; a loop that is blocked looks the same): replaced, nobody fails.

The supervisor waits for ten seconds first, so these tests take as long.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot, alive
from tests.lab.store import Store
from tests.lab.upstream import Upstream

pytestmark = pytest.mark.lab

SIZE = 4 * images.MIB
RATE = SIZE  # bytes per second: slow enough to be caught in the act
REPLACED = 30  # seconds until a process has been replaced, at most


@contextmanager
def fetcher_hangs(entrepot: Entrepot, upstream: Upstream) -> Iterator[list[int]]:
    """Stops whoever fetches, once within the block, when a part is under way. The pid is in the list then."""
    store = Store(entrepot.store, lambda digest: upstream.storage(world.GHCR))
    stopped: list[int] = []

    def hunt() -> None:
        def writes() -> bool:
            parts = store.parts()
            stopped[:] = [pid for digest, pid in store.writers().items() if parts.get(digest, 0) > images.MIB // 4]
            return bool(stopped)

        wait_for(writes, "a transfer")
        os.kill(stopped[0], signal.SIGSTOP)

    hunter = Thread(target=hunt)
    hunter.start()
    try:
        yield stopped
    finally:
        hunter.join()


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_a_fetch_that_hangs_is_missed_by_nobody(
    kind: str, builder: Clients, entrepot: Entrepot, upstream: Upstream
) -> None:
    """Rule 2: what it had written is on disk, and its successor goes on from there."""
    image = images.build([SIZE], "oci")
    repository = upstream.publish(world.GHCR, image)
    before = len(entrepot.daemon.output())
    with (
        upstream.fault(host=str(world.GHCR.cdn), rate=RATE),
        upstream.watched() as seen,
        fetcher_hangs(entrepot, upstream) as stopped,
    ):
        builder[kind].pull(repository.image)
    assert builder[kind].held(repository.image).is_same_as(image)
    builder[kind].forget()
    (pid,) = stopped
    assert not alive(pid)
    lines = [line for line in entrepot.daemon.output()[before:].splitlines() if " supervisor: " in line]
    assert len(lines) == 1
    assert "fetch-0" in lines[0]
    assert "was killed, having shown no life for 10 s" in lines[0]
    starts = [each.headers.get("range", "") for each in seen if each.path.endswith(image.layer_digests[0])]
    assert not starts[-1].startswith("bytes=0-")


def test_all_that_hang_at_once_are_replaced(
    builder: Clients, entrepot: Entrepot, network: Network, upstream: Upstream
) -> None:
    """Nothing answers, until all of it does."""
    # One that has not begun to serve yet may be silent for as long as it likes.
    page = f"import urllib.request; urllib.request.urlopen('http://{entrepot.address}:8080/metrics', timeout=20)"
    entrepot.machine.run(sys.executable, "-I", "-c", page)
    hanging = entrepot.roles()
    assert set(hanging.values()) == {"proxy", "fetch", "dns", "web"}
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)

    def replaced() -> bool:
        roles = entrepot.roles()
        return not roles.keys() & hanging.keys() and sorted(roles.values()) == sorted(hanging.values())

    wait_for(replaced, "others in their place", REPLACED)
    wait_for(lambda: network.builder.lookup(world.GHCR.name) == {world.CACHE}, "an answer of DNS")
    image = images.build([images.KIB], "oci")
    repository = upstream.publish(world.GHCR, image)
    builder["skopeo"].pull(repository.image)
    assert builder["skopeo"].held(repository.image).is_same_as(image)
    builder["skopeo"].forget()
