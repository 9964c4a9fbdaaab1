"""Processes that die, stop, reload and start: clients lose nothing that could be kept."""

import signal
from collections.abc import Mapping
from typing import Any

import pytest
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot, alive, kill
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Wire

pytestmark = pytest.mark.lab

CDN = "cdn01.quay.io"
HALF = 2 * images.MIB
ALMOST_HALF = HALF - images.KIB
"""What a client surely has by then. An answer may stay a little behind what has come in, to be verified first."""
HALF_WAY: Mapping[str, Any] = {"host": CDN, "method": "GET", "pause_after": HALF}
"""The fault that stops a download in its middle until it is taken away."""
ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}


def begun(wire: Wire, upstream: Upstream) -> tuple[Download, world.Repository, images.Blob]:
    """A download of a new blob of 4 MiB. Under `HALF_WAY` it stands still in the middle of it."""
    image = images.build([2 * HALF], "oci")
    repository = upstream.publish(world.QUAY, image)
    (layer,) = image.layers
    return blob_of(wire, repository, layer.blob), repository, layer.blob


def blob_of(wire: Wire, repository: world.Repository, blob: images.Blob) -> Download:
    target = repository.target(f"blobs/{blob.digest}")
    return Download(wire, repository.host, target, wire.authorization(repository))


def test_killed_workers_are_replaced(entrepot: Entrepot, builder: Clients, upstream: Upstream) -> None:
    before = entrepot.serving()
    assert before, "no process serves"
    for pid in before:
        kill(pid)
    image = images.build()
    reference = upstream.publish(world.QUAY, image).image
    builder["skopeo"].pull(reference)
    assert builder["skopeo"].held(reference).is_same_as(image)
    assert not set(before) & set(entrepot.serving())
    assert entrepot.daemon.running


def test_other_processes_are_replaced_too(entrepot: Entrepot, builder: Clients, upstream: Upstream) -> None:
    """Names resolve again after the process that answers DNS was killed, or whatever else runs beside the workers."""
    for pid in set(entrepot.processes()) - set(entrepot.serving()):
        kill(pid)
    reference = upstream.publish(world.GHCR, images.build()).image
    builder["skopeo"].pull(reference)
    assert entrepot.daemon.running


def test_kill_during_a_download_loses_no_byte(own_entrepot: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """Rules 2 and 10: what was on disk is not fetched again, and the next client gets it whole."""
    with upstream.fault(**HALF_WAY):
        download, repository, blob = begun(own_wire, upstream)
        download.read(ALMOST_HALF)
        for pid in own_entrepot.serving():
            kill(pid)
        download.close()
    with upstream.watched() as seen:
        again = blob_of(own_wire, repository, blob)
        again.read()
    assert (again.status, again.digest) == (200, blob.digest)
    assert sum(each.sent for each in seen.to(CDN)) <= len(blob.data) - ALMOST_HALF


def test_sigterm_drains(own_entrepot: Entrepot, own_wire: Wire, network: Network, upstream: Upstream) -> None:
    """A download that runs is finished, new connections are not taken, and the end is a clean one."""
    with upstream.fault(**HALF_WAY):
        download, _, blob = begun(own_wire, upstream)
        download.read(ALMOST_HALF)
        pids = own_entrepot.processes()
        own_entrepot.daemon.signal(signal.SIGTERM)
        wait_for(lambda: not network.laptop.answers(own_entrepot.address, 443), "end of listening")
        assert own_entrepot.daemon.running
    download.read()
    assert (download.received, download.digest) == (len(blob.data), blob.digest)
    assert own_entrepot.daemon.wait(20) == 0
    assert not any(alive(pid) for pid in pids)


def test_sighup_keeps_downloads(own_entrepot: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """A reload is taken up by the processes that run, and breaks nothing; a broken file changes nothing."""
    tagged = upstream.publish(world.MICROSOFT, images.build(style="oci"))

    def checked_upstream() -> bool:
        with upstream.watched() as seen:
            reply = own_wire.ask(tagged.host, tagged.target("manifests/1"), ANY_MANIFEST)
            assert reply.status == 200
        return any(each.is_manifest for each in seen)

    checked_upstream()
    assert not checked_upstream()
    with upstream.fault(**HALF_WAY):
        download, _, blob = begun(own_wire, upstream)
        download.read(ALMOST_HALF)
        before = own_entrepot.serving()

        own_entrepot.write_config("[policy]\ntag_tll = 1\n")
        own_entrepot.reload()
        wait_for(lambda: "tag_tll" in own_entrepot.daemon.output(), "word about the broken file")
        assert not checked_upstream()

        own_entrepot.write_config('[policy]\ntag_ttl = "0s"\n')
        own_entrepot.reload()
        wait_for(checked_upstream, "tags that are always checked")
    download.read()
    assert (download.received, download.digest) == (len(blob.data), blob.digest)
    assert own_entrepot.serving() == before


def test_start_needs_no_upstream(own_entrepot: Entrepot, own_wire: Wire, network: Network, upstream: Upstream) -> None:
    """Rule 5: `up` with the store of an earlier run serves what it holds though there is no Internet."""
    image = images.build(style="oci")
    repository = upstream.publish(world.MICROSOFT, image)
    kept = (
        ("manifests/1", image.manifest),
        (f"manifests/{image.manifest.digest}", image.manifest),
        *((f"blobs/{each.digest}", each) for each in image.blobs),
    )

    def pull() -> None:
        for target, blob in kept:
            reply = own_wire.ask(repository.host, repository.target(target), ANY_MANIFEST)
            assert (reply.status, reply.body) == (200, blob.data), target

    pull()
    own_entrepot.stop()
    with network.unplugged(), upstream.watched() as seen:
        own_entrepot.start()
        pull()
    assert seen == []


def test_stop_ends_every_process(own_entrepot: Entrepot) -> None:
    pids = own_entrepot.processes()
    assert pids
    own_entrepot.daemon.signal(signal.SIGTERM)
    assert own_entrepot.daemon.wait(20) == 0
    assert not any(alive(pid) for pid in pids)
