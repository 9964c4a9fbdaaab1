"""An upstream that is away (rule 5): what is held is served, and what failed meanwhile is not held against anybody."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, LOGIN, Clients
from tests.lab.net import CommandFailed, Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Reply, Wire

pytestmark = pytest.mark.lab

type Blackholed = Callable[[], AbstractContextManager[None]]

ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}
PUBLIC = (world.DOCKER_HUB, world.QUAY, world.GITLAB)
PRIVATE = (world.DOCKER_HUB, world.BASIC)
TRIES = 6
"""More than there are workers: each of them sees the failure more than once."""


def test_an_outage_leaves_nothing_behind(
    own_entrepot: Entrepot, own_wire: Wire, network: Network, upstream: Upstream
) -> None:
    """Every request that fails while there is no upstream has an answer, and succeeds once there is one again."""
    image = images.build(style="oci")
    repository = upstream.publish(world.MICROSOFT, image)
    targets = ("manifests/1", f"manifests/{image.digest}", f"blobs/{image.config.digest}", "tags/list")

    def ask(target: str) -> Reply:
        return own_wire.ask(repository.host, repository.target(target), ANY_MANIFEST)

    with network.unplugged():
        for target in targets:
            for _ in range(TRIES):
                assert ask(target).status in {502, 503, 504}, target
    for target in targets:
        wait_for(lambda target=target: ask(target).status == 200, target)  # type: ignore[misc]
        assert [ask(target).status for _ in range(TRIES)] == [200] * TRIES, target


@pytest.fixture
def all_is_well_afterwards(wire: Wire, upstream: Upstream, entrepot: Entrepot) -> Iterator[None]:
    """The test may make the upstream sick; at its end waits until everybody's Entrepot has noticed that it is not."""
    public = {each.name: upstream.publish(each, images.build()) for each in world.REGISTRIES}

    def back() -> bool:
        return all(
            wire.ask(one.host, one.target("tags/list"), wire.authorization(one, login=LOGIN)).status == 200
            for one in public.values()
        )

    yield
    wait_for(back, "everything as before", 60)
    # A probe comes every 15 s at the latest; a test that follows must not get tokens of the box's own.
    wait_for(lambda: not json.loads(entrepot.command("stats", "--json"))["down"], "nothing to be down any more", 60)


@pytest.fixture
def blackholed(network: Network, all_is_well_afterwards: None) -> Blackholed:
    """Takes the upstream away."""
    return network.blackholed


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_image_is_pulled_while_the_registry_is_gone(
    kind: str,
    builder: Clients,
    laptop: Clients,
    upstream: Upstream,
    blackholed: Blackholed,
) -> None:
    """By a client that has never pulled it, has no token, and asks with an `Accept` of its own."""
    image = images.build()
    references = [upstream.publish(each, image).image for each in PUBLIC]
    for reference in references:
        builder["podman"].pull(reference)
    builder["podman"].forget()
    with blackholed():
        for reference in references:
            laptop[kind].pull(reference)
            assert laptop[kind].held(reference).is_same_as(image)
            laptop[kind].forget()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("registry", PRIVATE, ids=lambda each: str(each.name))
def test_a_private_image_is_pulled_by_whom_the_registry_has_admitted(
    registry: world.Registry,
    kind: str,
    builder: Clients,
    laptop: Clients,
    upstream: Upstream,
    blackholed: Blackholed,
) -> None:
    """With the right password, on another machine; with a wrong one or none it is refused as ever."""
    image = images.build()
    reference = upstream.publish(registry, image, private=True).image
    for _ in range(2):  # the first time shows that it is private, which makes the password worth remembering
        builder["podman"].pull(reference, LOGIN)
        builder["podman"].forget()
    with blackholed():
        laptop[kind].pull(reference, LOGIN)
        assert laptop[kind].held(reference).is_same_as(image)
        laptop[kind].forget()
        for login in (None, ("user", "wrong")):
            with pytest.raises(CommandFailed):
                laptop[kind].pull(reference, login)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_pull_after_an_outage_succeeds(
    kind: str, laptop: Clients, wire: Wire, upstream: Upstream, network: Network, blackholed: Blackholed
) -> None:
    """Of what is not held: whoever comes first has it looked at whether the registry is back (`health`)."""
    images_ = [images.build() for _ in PUBLIC]
    known = [upstream.publish(each, images.build()) for each in PUBLIC]
    unheld = [upstream.publish(each, image) for each, image in zip(PUBLIC, images_, strict=True)]
    for each in known:
        laptop[kind].pull(each.image)
    with blackholed():
        for each in known:
            assert wire.ask(each.host, each.target("manifests/other"), ANY_MANIFEST).status >= 400
            laptop[kind].forget()
            laptop[kind].pull(each.image)
    for each, image in zip(unheld, images_, strict=True):
        laptop[kind].pull(each.image)
        assert laptop[kind].held(each.image).is_same_as(image)
    laptop[kind].forget()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [429, 503])
def test_an_upstream_that_says_nothing_else(
    status: int, kind: str, builder: Clients, laptop: Clients, upstream: Upstream, all_is_well_afterwards: None
) -> None:
    """Throttled, or failing, at every request: registries, token services and content networks alike.

    A client that has never pulled gets what is held: public for all, private with the right password only.
    """
    image = images.build()
    public = [upstream.publish(each, image).image for each in PUBLIC]
    private = [upstream.publish(each, image, private=True).image for each in PRIVATE]
    for reference in public:
        builder["podman"].pull(reference)
    for _ in range(2):  # see above
        for reference in private:
            builder["podman"].pull(reference, LOGIN)
        builder["podman"].forget()
    with upstream.fault(status=status):
        for reference in public:
            laptop[kind].pull(reference)
            assert laptop[kind].held(reference).is_same_as(image)
            laptop[kind].forget()
        for reference in private:
            laptop[kind].pull(reference, LOGIN)
            assert laptop[kind].held(reference).is_same_as(image)
            laptop[kind].forget()
            for login in (None, ("user", "wrong")):
                with pytest.raises(CommandFailed):
                    laptop[kind].pull(reference, login)
