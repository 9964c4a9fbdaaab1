"""A store on a disk that is small, or that somebody else fills (DESIGN rule 10): pass-through, not failure.

What is held is served, what is not comes past the store, nobody gets a clean end on a short or wrong body, and when
there is room again things are kept again. Nothing has to be done by hand.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from tests.lab import images, world
from tests.lab.net import Network, in_parallel, wait_for
from tests.lab.product import Entrepot
from tests.lab.store import Store
from tests.lab.traffic import ANY_MANIFEST
from tests.lab.upstream import Upstream
from tests.lab.wire import Listener, Reply, Wire

pytestmark = pytest.mark.lab

MIB = images.MIB
DISK, MIN_FREE = 40 * MIB, 8 * MIB
CLIENTS = 6
PAGE = 4096


class Disk:
    """The small file system that the store is on, as the machine has it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def full(self) -> Iterator[None]:
        """Somebody else takes all that is free, and what becomes free, until the end of the block."""
        foreign = self.root / "foreign"
        try:
            self.take()
            yield
        finally:
            foreign.unlink(missing_ok=True)

    def take(self) -> None:
        with (self.root / "foreign").open("ab", buffering=0) as file:
            for size in (MIB, PAGE, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))


@pytest.fixture
def box(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    box = Entrepot(
        network.cache,
        tmp_path_factory.mktemp("small"),
        upstream.ca_file,
        world.CACHE_SECOND,
        entrepot.certs,
        listen="workers = 2",
        env={"ENTREPOT_STORE_MIN_FREE": f"{MIN_FREE // MIB}MiB"},
    )
    box.store.mkdir()
    network.cache.run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(box.store))
    try:
        box.start()
        yield box
        box.stop()
    finally:
        network.cache.run("umount", "--lazy", str(box.store))


@pytest.fixture
def disk(box: Entrepot) -> Disk:
    return Disk(box.machine.path(box.store))


@pytest.fixture
def store(disk: Disk, upstream: Upstream) -> Store:
    storage = upstream.storage(world.MICROSOFT)
    return Store(disk.root, lambda digest: images.blob_path(storage, digest))


@pytest.fixture
def box_wire(network: Network, box: Entrepot) -> Wire:
    return Wire(network.laptop, box.ca_file, box.address)


class Pull:
    """An image nobody has asked for yet, and how its parts are got."""

    def __init__(self, wire: Wire, upstream: Upstream, *sizes: int) -> None:
        self._wire = wire
        self.image = images.build(sizes, "oci")
        self._repository = upstream.publish(world.MICROSOFT, self.image)
        self.layers = [layer.blob for layer in self.image.layers]

    def get(self, name: str) -> Reply:
        return self._wire.ask(self._repository.host, self._repository.target(name), ANY_MANIFEST)

    def manifest(self) -> None:
        """By tag and by digest."""
        for name in ("1", self.image.manifest.digest):
            reply = self.get(f"manifests/{name}")
            assert (reply.status, reply.body) == (200, self.image.manifest.data), reply
            assert reply.headers["Docker-Content-Digest"] == self.image.manifest.digest

    def blob(self, blob: images.Blob) -> None:
        reply = self.get(f"blobs/{blob.digest}")
        assert (reply.status, images.digest_of(reply.body)) == (200, blob.digest), reply.body[:500]
        assert reply.headers["Content-Length"] == str(len(blob.data))
        assert reply.headers["Docker-Content-Digest"] == blob.digest

    def whole(self) -> None:
        """As a client pulls it."""
        self.manifest()
        for blob in self.image.blobs:
            self.blob(blob)

    def listener(self) -> Listener:
        return Listener(self._wire, self._repository.host)

    def listen(self, listener: Listener, blob: images.Blob) -> None:
        listener.get(self._repository.target(f"blobs/{blob.digest}"), ANY_MANIFEST)


def check_ends(listeners: list[Listener], blob: images.Blob) -> None:
    """Each got the whole blob, or its beginning and a FIN."""
    for one in listeners:
        assert one.status == 200
        assert one.end in {"whole", "fin"}
        assert blob.data.startswith(one.body)
        assert (one.end == "whole") == (len(one.body) == len(blob.data))


@pytest.mark.parametrize("size", [DISK + 8 * MIB, DISK - 4 * MIB], ids=["than the disk", "than may be taken of it"])
def test_what_is_larger(size: int, box_wire: Wire, upstream: Upstream, store: Store) -> None:
    """It is served past the store, to several clients at once too; what fits is kept before and after."""
    before, large, after = (Pull(box_wire, upstream, each) for each in (MIB, size, MIB))
    before.whole()
    large.manifest()
    (blob,) = large.layers
    in_parallel([partial(large.blob, blob)] * CLIENTS)
    after.whole()
    assert store.parts() == {}
    assert blob.digest not in store.blobs()
    assert {each.digest for pull in (before, after) for each in pull.image.blobs} <= store.blobs().keys()
    store.check()


def test_what_has_no_room_left(box_wire: Wire, upstream: Upstream, store: Store, disk: Disk) -> None:
    """The store is full of what has just been used, which does not go; the free space asked for stays free."""
    pulls = [Pull(box_wire, upstream, 6 * MIB, 4 * MIB) for _ in range(5)]
    in_parallel([pull.whole for pull in pulls])
    for pull in pulls:  # what is held, and what is not
        pull.whole()
    held = store.blobs()
    assert 0 < sum(held.values()) <= DISK - MIN_FREE
    assert not {blob.digest for pull in pulls for blob in pull.layers} <= held.keys()
    store.check()


def test_filled_while_a_transfer_is_under_way(box_wire: Wire, upstream: Upstream, store: Store, disk: Disk) -> None:
    held, cut = Pull(box_wire, upstream, MIB), Pull(box_wire, upstream, 8 * MIB)
    held.whole()
    cut.manifest()
    (blob,) = cut.layers
    with ExitStack() as full:

        def fill() -> None:
            wait_for(lambda: store.parts().get(blob.digest, 0) > MIB, "a part")
            full.enter_context(disk.full())

        listeners = [cut.listener() for _ in range(CLIENTS)]
        jobs: list[Callable[[], None]] = [fill, *(partial(cut.listen, one, blob) for one in listeners)]
        with upstream.fault(method="GET", path=f".*/{blob.digest}", rate=6 * MIB):
            in_parallel(jobs)
        check_ends(listeners, blob)
        assert blob.digest not in store.blobs(), "it was not filled in time"
        in_parallel([partial(cut.blob, blob)] * CLIENTS)
        store.check()
        with upstream.watched() as seen:
            held.whole()
        assert seen.blob_gets() == []
    wait_for(lambda: kept(cut, blob, store), "the blob in the store")
    store.check()


def kept(pull: Pull, blob: images.Blob, store: Store) -> bool:
    pull.blob(blob)
    return blob.digest in store.blobs()


def test_full_for_the_records_too(box: Entrepot, box_wire: Wire, upstream: Upstream, store: Store, disk: Disk) -> None:
    """Manifests come from upstream, by tag and by digest, and so does what belongs to them; what is held is served."""
    held = Pull(box_wire, upstream, MIB)
    held.whole()
    with disk.full():
        for _ in range(20):
            Pull(box_wire, upstream, 64 * images.KIB).whole()
            disk.take()
        with upstream.watched() as seen:
            held.whole()
        assert seen.blob_gets() == []
    check_keeps_again(box_wire, upstream, store)
    scrubbed = json.loads(box.command("scrub", "--json"))
    assert scrubbed["wrong"] == []
    assert scrubbed["blobs"] == len(store.blobs())


def test_started_while_it_is_full(box: Entrepot, box_wire: Wire, upstream: Upstream, store: Store, disk: Disk) -> None:
    held = Pull(box_wire, upstream, MIB)
    held.whole()
    with disk.full():
        box.stop()
        disk.take()
        box.start()
        disk.take()
        held.whole()
        Pull(box_wire, upstream, MIB).whole()
    check_keeps_again(box_wire, upstream, store)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_started_while_it_is_full_again_and_again(
    how: str, box: Entrepot, box_wire: Wire, network: Network, upstream: Upstream, store: Store, disk: Disk
) -> None:
    """There is no ballast left to make room for the databases; what is held is served, without upstream too."""
    held = Pull(box_wire, upstream, MIB)
    held.whole()
    with disk.full():
        for _ in range(3):
            if how == "stopped":
                box.stop()
            else:
                box.kill()
            disk.take()
            box.start()
            disk.take()
            with upstream.watched() as seen:
                held.whole()
            assert seen.blob_gets() == []
            Pull(box_wire, upstream, MIB).whole()
        with network.unplugged():
            held.whole()
    check_keeps_again(box_wire, upstream, store)


def remembers(wire: Wire, upstream: Upstream) -> bool:
    """Whether what was pulled now is pulled without upstream the next time."""
    pull = Pull(wire, upstream, images.KIB)
    pull.whole()
    with upstream.watched() as seen:
        pull.whole()
    return seen == []


def check_keeps_again(wire: Wire, upstream: Upstream, store: Store) -> None:
    wait_for(lambda: remembers(wire, upstream), "records")
    after = Pull(wire, upstream, MIB)
    after.whole()
    wait_for(lambda: kept(after, after.layers[0], store), "the blob in the store")
    store.check()
    with upstream.watched() as seen:
        after.whole()
    assert seen == []
