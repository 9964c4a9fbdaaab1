"""What happens when ...: the rows of that table of the README that have no file of tests of their own.

Upstream down or throttled: `test_outage`. Disk full: `test_full_disk`. No worker answers, or the box is told to stop:
`test_failing_open`.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlencode

import pytest
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.traffic import ANY_MANIFEST
from tests.lab.trust import trust_by_hand
from tests.lab.upstream import Upstream
from tests.lab.wire import Reply, Wire

pytestmark = pytest.mark.lab

type Login = tuple[str, str] | None
type MakeBox = Callable[[str], tuple[Entrepot, Wire]]


@pytest.fixture
def make_box(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeBox]:
    """An Entrepot with more in its configuration, and the way to it. Of one worker: what each remembers is its own."""
    made: list[Entrepot] = []

    def make(extra: str = "") -> tuple[Entrepot, Wire]:
        folder = tmp_path_factory.mktemp("happens")
        place = world.CACHE_SECOND, entrepot.certs
        made.append(Entrepot(network.cache, folder, upstream.ca_file, *place, listen="workers = 1"))
        made[-1].write_config(extra)
        made[-1].start()
        return made[-1], Wire(network.laptop, made[-1].ca_file, made[-1].address)

    yield make
    for each in made:
        each.stop()


class Image:
    """One in a repository, and what a client asks for when it pulls it."""

    def __init__(self, wire: Wire, repository: world.Repository, image: images.Image) -> None:
        self._wire, self._repository, self._image = wire, repository, image
        self.named = {f"manifests/{image.digest}": image.manifest}
        self.named |= {f"blobs/{each.digest}": each for each in image.blobs}

    def ask(self, part: str, headers: Mapping[str, str]) -> Reply:
        return self._wire.ask(self._repository.host, self._repository.target(part), {**ANY_MANIFEST, **headers})

    def check_pulled(self, headers: Mapping[str, str]) -> None:
        """By tag, and what belongs to it by digest."""
        for part, blob in {"manifests/1": self._image.manifest, **self.named}.items():
            reply = self.ask(part, headers)
            assert (reply.status, reply.body) == (200, blob.data), part


def token_of(wire: Wire, repository: world.Repository, login: Login) -> Reply:
    """What the token service of its registry says."""
    service = repository.registry.auth
    assert isinstance(service, world.TokenService)
    basic = {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"} if login else {}
    query = urlencode({"service": service.service, "scope": f"repository:{repository.path}:pull"})
    return wire.ask(service.host, f"{service.path}?{query}", basic)


ALWAYS_CHECKED = '[policy]\ntag_ttl = "0s"\n'


def test_a_tag_that_was_deleted(make_box: MakeBox, upstream: Upstream) -> None:
    """It is gone here too when it is checked next; what has its digest is still good, and a new tag is found."""
    _, wire = make_box(ALWAYS_CHECKED)
    image, other = images.build(style="oci"), images.build(style="oci")
    repository = upstream.publish(world.MICROSOFT, image)
    pulled = Image(wire, repository, image)
    pulled.check_pulled({})
    upstream.untag(repository)
    gone = pulled.ask("manifests/1", {})
    assert (gone.status, gone.error_codes) == (404, ["MANIFEST_UNKNOWN"])
    for part, blob in pulled.named.items():
        reply = pulled.ask(part, {})
        assert (reply.status, reply.body) == (200, blob.data), part
    upstream.move(repository, other)
    wait_for(lambda: pulled.ask("manifests/1", {}).status == 200, "the new tag")  # an absence is believed for seconds
    Image(wire, repository, other).check_pulled({})


@pytest.mark.parametrize("how", ["checked", "purged"])
def test_a_repository_that_was_made_private(how: str, make_box: MakeBox, upstream: Upstream) -> None:
    """It is when a tag of it is checked, or at once by `entrepot purge`; and then all that belongs to it."""
    box, wire = make_box(ALWAYS_CHECKED if how == "checked" else "")
    image = images.build(style="oci")
    repository = upstream.publish(world.QUAY, image)
    pulled = Image(wire, repository, image)
    pulled.check_pulled(wire.authorization(repository))
    with upstream.owned(repository, world.ALICE):
        nobody = wire.authorization(repository)
        if how == "purged":
            pulled.check_pulled(nobody)  # what was found is believed for `tag_ttl` and `public_ttl`
            box.command("purge", repository.image)
        assert pulled.ask("manifests/1", nobody).status == 401
        for part in pulled.named:
            wait_for(lambda part=part: pulled.ask(part, nobody).status == 401, part)  # type: ignore[misc]
        pulled.check_pulled(wire.authorization(repository, login=(world.ALICE, world.ALICE_FIRST)))


def test_a_password_that_was_changed(make_box: MakeBox, upstream: Upstream, network: Network) -> None:
    """The old one opens nothing as soon as the registry has been heard of the new one, not even without upstream."""
    _, wire = make_box("")
    image = images.build(style="oci")
    repository = upstream.publish(world.QUAY, image, private=True, owner=world.ALICE)
    pulled = Image(wire, repository, image)
    old, new = (world.ALICE, world.ALICE_FIRST), (world.ALICE, world.ALICE_LATER)
    assert wire.ask(repository.host, repository.target("manifests/1"), ANY_MANIFEST).status == 401
    for _ in range(2):  # the first time shows that it is private, which makes the password worth remembering
        pulled.check_pulled(wire.authorization(repository, login=old))
    with upstream.password(world.ALICE, world.ALICE_LATER):
        assert token_of(wire, repository, old).status == 401
        for _ in range(2):
            pulled.check_pulled(wire.authorization(repository, login=new))
        with network.blackholed():
            assert token_of(wire, repository, old).status == 401
            pulled.check_pulled(wire.authorization(repository, login=new))


@pytest.fixture
def beside(network: Network, upstream: Upstream, direct: Clients, own_entrepot: Entrepot) -> Iterator[Clients]:
    """Clients that ask `own_entrepot` for names, and another name server where that does not answer."""
    resolv = network.direct.path("/etc/resolv.conf")
    before = resolv.read_text()
    resolv.write_text(f"nameserver {own_entrepot.address}\nnameserver {world.UPSTREAM_DNS}\noptions timeout:1\n")
    trust_by_hand(network.direct, own_entrepot.ca_file.read_bytes() + upstream.authority.pem)
    yield direct
    resolv.write_text(before)
    trust_by_hand(network.direct, upstream.authority.pem)


@pytest.mark.parametrize("kind", ["skopeo", "podman"])  # a daemon would go on with the trust of its start
def test_a_box_that_is_gone(kind: str, beside: Clients, own_entrepot: Entrepot, upstream: Upstream) -> None:
    """With a second name server clients pull from the registries themselves, as they did without it."""
    image = images.build()
    reference = upstream.publish(world.QUAY, image).image
    for cached in (False, True):
        with upstream.watched() as seen:
            beside[kind].pull(reference)
        assert (seen.blob_gets() == []) is cached
        beside[kind].forget()
    own_entrepot.stop()
    with upstream.watched() as seen:
        beside[kind].pull(reference)
    assert seen.blob_gets() != []
    assert beside[kind].held(reference).is_same_as(image)
    beside[kind].forget()
