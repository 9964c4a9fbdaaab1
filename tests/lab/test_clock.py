"""The clock of the box jumps, forward and back, by days, while it serves (DESIGN rules 3, 4, 10 and 12).

Nothing ends because of it, nothing that was learnt under the other time is believed for longer than it would have been,
certificates are always good by the clock of the day, and the store does not lose what it need not.
"""

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import dns.message
import dns.query
import pytest
from cryptography import x509
from tests.lab import images, pki, world
from tests.lab.clock import Clock
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.store import Store
from tests.lab.traffic import ANY_MANIFEST
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Reply, Wire

pytestmark = pytest.mark.lab

DAY = timedelta(days=1)
HOSTS = (world.MICROSOFT.host, world.BASIC.host)
LEAF_DAYS = 7  # the default
SIZE, BLOB = 26 * images.MIB, 4 * images.MIB  # of the store, and of what comes into it: room for six
WORKERS = 2
TRIES = 12  # so many requests meet each worker, all but surely
LOGIN = (world.USER, world.PASSWORD)
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: clients have the right time, whatever the box has


@pytest.fixture
def lasting(upstream: Upstream, tmp_path: Path) -> Iterator[Path]:
    """Certificates of the upstream that are good for as far as clocks jump here; what signs them."""
    state = upstream.ca_file.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pki, "LIFE", 100 * DAY)
        authority = pki.authority("Lab Lasting Web")
        pki.write_leaves(state, HOSTS, authority)
    path = tmp_path / "lasting.crt"
    path.write_bytes(authority.pem)
    yield path
    pki.write_leaves(state, HOSTS, upstream.authority)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def box(
    network: Network, entrepot: Entrepot, lasting: Path, clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    """Not running yet."""
    box = Entrepot(
        network.cache,
        tmp_path_factory.mktemp("clock"),
        lasting,
        world.CACHE_SECOND,
        entrepot.certs,
        listen=f"workers = {WORKERS}",
        upstream='read_timeout = "2s"',
        env={**clock.env, "ENTREPOT_STORE_SIZE": f"{SIZE // images.MIB}MiB"},
    )
    yield box
    box.stop()


@pytest.fixture
def box_wire(network: Network, box: Entrepot) -> Wire:
    wire = Wire(network.laptop, box.ca_file, box.address)
    wire.context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    return wire


class Image:
    """One image of one registry, pulled by hand."""

    def __init__(self, wire: Wire, upstream: Upstream, registry: world.Registry, size: int = images.MIB) -> None:
        self._wire, self._upstream = wire, upstream
        self.image = images.build([size], "oci")
        self.repository = upstream.publish(registry, self.image, private=registry is world.BASIC)
        self.tag("2", self.image)
        self.headers = {**ANY_MANIFEST, **wire.authorization(self.repository, login=LOGIN)}
        (self.blob,) = (layer.blob for layer in self.image.layers)

    def tag(self, tag: str, image: images.Image) -> None:
        """At the registry."""
        images.publish(self._upstream.storage(self.repository.registry), self.repository.path, tag, image)

    def ask(self, name: str) -> Reply:
        return self._wire.ask(self.repository.host, self.repository.target(name), self.headers)

    def answers(self, name: str) -> bool:
        """As the registry has it now."""
        reply = self.ask(name)
        return reply.status == 200 and "Warning" not in reply.headers

    def manifest(self) -> Reply:
        return self.ask("manifests/1")

    def download(self) -> Download:
        target = self.repository.target(f"blobs/{self.blob.digest}")
        return Download(self._wire, self.repository.host, target, self.headers)

    def pull(self) -> Reply:
        """What the manifest came with."""
        reply = self.manifest()
        assert (reply.status, reply.body) == (200, self.image.manifest.data), reply
        check_age(reply)
        download = self.download()
        download.read()
        assert (download.status, download.digest) == (200, self.blob.digest)
        return reply

    def is_fresh(self) -> bool:
        """Whether it is pulled now without a question to the registry, and not for want of one."""
        parts = {self.repository.target(name) for name in ("manifests/1", f"blobs/{self.blob.digest}")}
        with self._upstream.watched() as seen:
            reply = self.pull()
        return "Warning" not in reply.headers and parts.isdisjoint(each.path for each in seen)


def check_certificate(wire: Wire, clock: Clock) -> None:
    """It is good by the clock of the box, and not about to end."""
    with wire.tls(HOSTS[0]) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    leaf = x509.load_der_x509_certificate(certificate)
    assert leaf.not_valid_before_utc <= clock.now()
    assert clock.now() + LEAF_DAYS * DAY / 4 <= leaf.not_valid_after_utc <= clock.now() + LEAF_DAYS * DAY


def check_age(reply: Reply) -> None:
    """It is an answer, and not older than anything here."""
    assert reply.status == 200
    assert 0 <= int(reply.headers["Age"]) < (100 * DAY).total_seconds()


def box_time(reply: Reply) -> datetime:
    return parsedate_to_datetime(reply.headers["Date"])


JUMPS = [
    pytest.param([0 * DAY, DAY, 6 * DAY, 40 * DAY], id="forward"),
    pytest.param([40 * DAY, 35 * DAY, 3 * DAY, timedelta(minutes=-10)], id="back"),
    pytest.param([0 * DAY, 30 * DAY, 0 * DAY], id="forward and back"),
]


@pytest.mark.parametrize("jumps", JUMPS)
def test_nothing_is_believed_longer_and_nothing_ends(
    jumps: list[timedelta], box: Entrepot, box_wire: Wire, clock: Clock, network: Network, upstream: Upstream
) -> None:
    clock.set(jumps[0])
    box.start()
    processes = box.processes()
    public, private = (Image(box_wire, upstream, registry) for registry in (world.MICROSOFT, world.BASIC))
    slow = Image(box_wire, upstream, world.MICROSOFT, 4 * images.MIB)
    assert abs(box_time(public.manifest()) - clock.now()) < timedelta(minutes=1)
    check_certificate(box_wire, clock)
    with ExitStack() as stack:
        with upstream.fault(method="GET", path=f".*/{slow.blob.digest}", pause_after=images.MIB):
            begun = stack.enter_context(closing(slow.download()))
            begun.read(images.MIB // 2)
            for each in (public, private):
                wait_for(each.is_fresh, "an image that is pulled without a question")
            for ahead in jumps[1:]:
                clock.set(ahead)
                check_certificate(box_wire, clock)
                for each in (public, private):
                    check_checked(each, network, upstream)
        begun.read()
    assert (begun.received, begun.digest) == (len(slow.blob.data), slow.blob.digest)
    assert box.processes() == processes


def check_checked(image: Image, network: Network, upstream: Upstream) -> None:
    """What is known from before a jump is asked for again, and can be had while there is nobody to ask."""
    wait_for(partial(image.answers, "manifests/2"), "tag 2")  # the asker is admitted anew, tag 1 still an old story
    with upstream.watched() as seen:
        with network.unplugged():
            check_age(image.manifest())
        wait_for(image.is_fresh, "an image that is pulled without a question")
    assert image.repository.target("manifests/1") in {request.path for request in seen}


@pytest.mark.parametrize("ahead", [5 * DAY, -5 * DAY], ids=["forward", "back"])
def test_who_has_lost_his_rights_does_not_get_them_back(
    ahead: timedelta, box: Entrepot, box_wire: Wire, clock: Clock, upstream: Upstream
) -> None:
    clock.set(10 * DAY)
    box.start()
    one, two, three = pulled = [Image(box_wire, upstream, world.BASIC) for _ in range(3)]
    for image in pulled:
        wait_for(image.is_fresh, "an image that is pulled without a question")
    clock.set(10 * DAY + ahead)
    with upstream.fault(host=world.BASIC.host, status=401, body="no longer\n"):
        for answer in (
            one.ask("manifests/1"),
            two.ask(f"manifests/{two.image.manifest.digest}"),
            three.ask(f"blobs/{three.blob.digest}"),
        ):
            assert (answer.status, answer.body) == (401, b"no longer\n")


def test_what_upstream_said_of_itself_does_not_stand_for_days(
    box: Entrepot, box_wire: Wire, clock: Clock, network: Network, upstream: Upstream
) -> None:
    """That it throttles, that it is away, that something is not there: under a clock that was ahead."""
    clock.set(30 * DAY)
    box.start()
    image, absent = (Image(box_wire, upstream, world.MICROSOFT) for _ in range(2))
    image.pull()
    assert [absent.ask("manifests/3").status for _ in range(TRIES)] == [404] * TRIES
    clock.set(30 * DAY + timedelta(minutes=2))  # the tag is to be checked
    with upstream.fault(method="HEAD", path=".*/manifests/1", status=429, headers={"Retry-After": "50"}):
        for _ in range(TRIES):
            check_age(image.manifest())
    with network.unplugged():
        check_age(image.manifest())
    for ahead in (3 * DAY, 3 * DAY + timedelta(minutes=2)):
        clock.set(ahead)
        newer = images.build([images.KIB], "oci")
        for one, tag in ((image, "1"), (absent, "3")):
            one.tag(tag, newer)
            ask = partial(one.ask, f"manifests/{tag}")
            wait_for(lambda ask=ask, newer=newer: ask().body == newer.manifest.data, f"tag {tag}")  # type: ignore[misc]


def test_before_the_authority_was_made(
    box: Entrepot, box_wire: Wire, clock: Clock, network: Network, upstream: Upstream
) -> None:
    """No certificate can be made then. Names lead past the box until the clock is right, and nothing ends."""
    box.start()
    processes = box.processes()
    image = Image(box_wire, upstream, world.MICROSOFT)
    image.pull()
    assert address_of(HOSTS[0], network, box) == box.address
    clock.set(-20 * DAY)
    wait_for(lambda: address_of(HOSTS[0], network, box) == world.addresses()[HOSTS[0]], "the real address", 40)
    with pytest.raises(OSError, match="(?i)unrecognized name"):
        image.manifest()
    clock.set(0 * DAY)
    image.pull()
    wait_for(lambda: address_of(HOSTS[0], network, box) == box.address, "the address of the box", 40)
    assert box.processes() == processes


@pytest.mark.parametrize("ahead", [40 * DAY, 3 * DAY], ids=["forward", "back"])
def test_eviction_does_what_it_must_and_no_more(
    ahead: timedelta, box: Entrepot, box_wire: Wire, clock: Clock, upstream: Upstream
) -> None:
    """What is held stays until its room is needed; then no more goes than that, and never what is being written."""
    clock.set(20 * DAY)
    box.start()
    storage = upstream.storage(world.MICROSOFT)
    store = Store(box.store, lambda digest: images.blob_path(storage, digest))
    before = [Image(box_wire, upstream, world.MICROSOFT, BLOB) for _ in range(4)]
    for each in before:
        each.pull()
    wait_for(lambda: len(store.blobs()) == 2 * len(before), "their configs, which are fetched ahead")
    held = store.blobs()
    slow, *after = (Image(box_wire, upstream, world.MICROSOFT, BLOB) for _ in range(4))
    with upstream.fault(method="GET", path=f".*/{slow.blob.digest}", pause_after=BLOB // 2):
        begun = slow.download()
        begun.read(BLOB // 4)
        clock.set(ahead)
        assert json.loads(box.command("gc", "--json"))["removals"] == []
        assert store.blobs() == held
        for each in after:
            each.pull()
        assert store.there() <= SIZE
    begun.read()
    assert begun.digest == slow.blob.digest
    wait_for(lambda: slow.blob.digest in store.blobs(), "the blob in the store")
    left = store.blobs().keys()
    assert {each.blob.digest for each in (slow, *after)} <= left
    assert sum(each.blob.digest in left for each in before) == 2
    assert store.there() <= SIZE
    store.check()


def address_of(name: str, network: Network, box: Entrepot) -> str:
    """As the DNS of the box has it."""
    with network.laptop.connect(box.address, 53) as connection:
        connection.settimeout(20)
        dns.query.send_tcp(connection, dns.message.make_query(name, "A"))
        reply, _ = dns.query.receive_tcp(connection)
    return str(reply.answer[0][0])
