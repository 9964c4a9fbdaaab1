"""DNS gives out the registries' real addresses when nobody serves here, or soon will not (DESIGN rule 11)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import dns.message
import dns.query
import pytest
from tests.lab import images, world
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot, alive
from tests.lab.traffic import ANY_MANIFEST
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Wire

pytestmark = pytest.mark.lab

NAMES = (world.QUAY.host, world.DOCKER_HUB.host, "auth.docker.io", world.GITLAB.host)
LONGEST = 30  # seconds that a client may keep a real address
ASIDE = 40.0  # seconds in which DNS has noticed: some probes in a row must fail
HALF = 2 * images.MIB
ALMOST_HALF = HALF - images.KIB

type Ask = Callable[[str], tuple[set[str], int]]
"""The addresses of a name, and for how many seconds they are good."""


def asker(network: Network, box: Entrepot) -> Ask:
    def ask(name: str) -> tuple[set[str], int]:
        with network.laptop.connect(box.address, 53) as connection:
            connection.settimeout(20)
            dns.query.send_tcp(connection, dns.message.make_query(name, "A"))
            reply, _ = dns.query.receive_tcp(connection)
        return {str(address) for records in reply.answer for address in records}, min(each.ttl for each in reply.answer)

    return ask


def check_real(ask: Ask) -> None:
    for name in NAMES:
        addresses, ttl = ask(name)
        assert addresses == {world.addresses()[name]}, name
        assert ttl <= LONGEST, name


@contextmanager
def nobody_serves(box: Entrepot, number: signal.Signals) -> Iterator[None]:
    """Every worker, and every one that comes in its place, gets the signal; stopped ones go on afterwards."""
    over, met = threading.Event(), set[int]()

    def hunt() -> None:
        while not over.is_set():
            for pid in [pid for pid, role in box.roles().items() if role == "proxy" and pid not in met]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                met.add(pid)
            over.wait(0.02)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield
    finally:
        over.set()
        hunter.join()
        for pid in met:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hang", "die"])
def test_while_no_worker_answers(
    number: signal.Signals, own_entrepot: Entrepot, own_wire: Wire, network: Network, upstream: Upstream
) -> None:
    repository = upstream.publish(world.MICROSOFT, images.build(style="oci"))
    ask = asker(network, own_entrepot)
    assert ask(world.QUAY.host)[0] == {own_entrepot.address}
    with nobody_serves(own_entrepot, number):
        wait_for(lambda: ask(world.QUAY.host)[0] != {own_entrepot.address}, "DNS to step aside", ASIDE)
        check_real(ask)
        assert ask(world.OUTSIDE)[0] == {world.addresses()[world.OUTSIDE]}
    wait_for(lambda: ask(world.QUAY.host)[0] == {own_entrepot.address}, "DNS to come back", ASIDE)
    assert all(ask(name)[0] == {own_entrepot.address} for name in NAMES)
    assert own_wire.ask(repository.host, repository.target("manifests/1"), ANY_MANIFEST).status == 200


@pytest.fixture
def box(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    """One that takes its time to leave."""
    folder = tmp_path_factory.mktemp("leaving")
    made = Entrepot(
        network.cache,
        folder,
        upstream.ca_file,
        world.CACHE_SECOND,
        entrepot.certs,
        env={"ENTREPOT_DNS_DRAIN": "6s"},
    )
    made.start()
    yield made
    made.stop()


def test_a_box_that_is_told_to_stop_leaves_dns_first(box: Entrepot, network: Network, upstream: Upstream) -> None:
    """Who comes all the same, having looked the name up before, is served; who reads has it all."""
    wire, ask = Wire(network.laptop, box.ca_file, box.address), asker(network, box)
    image, other = images.build([2 * HALF], "oci"), images.build(style="oci")
    repository, late = upstream.publish(world.QUAY, image), upstream.publish(world.MICROSOFT, other)
    (layer,) = image.layers
    target = repository.target(f"blobs/{layer.blob.digest}")
    with upstream.fault(host=str(world.QUAY.cdn), method="GET", pause_after=HALF):
        download = Download(wire, repository.host, target, wire.authorization(repository))
        download.read(ALMOST_HALF)
        pids = box.processes()
        box.daemon.signal(signal.SIGTERM)
        wait_for(lambda: ask(world.QUAY.host)[0] != {box.address}, "DNS to step aside")
        check_real(ask)
        for each in (f"manifests/{other.digest}", *(f"blobs/{blob.digest}" for blob in other.blobs)):
            assert wire.ask(late.host, late.target(each), ANY_MANIFEST).status == 200
        wait_for(lambda: not network.laptop.answers(box.address, 443), "end of listening")
        assert box.daemon.running
    download.read()
    assert (download.received, download.digest) == (len(layer.blob.data), layer.blob.digest)
    assert box.daemon.wait(20) == 0
    assert not any(alive(pid) for pid in pids)
