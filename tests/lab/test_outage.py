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

ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}
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
def blackholed(
    network: Network, wire: Wire, upstream: Upstream, entrepot: Entrepot
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Takes the upstream away; afterwards waits until everybody's Entrepot has noticed that it is back."""
    public = {each.name: upstream.publish(each, images.build()) for each in world.REGISTRIES}

    def back() -> bool:
        return all(
            wire.ask(one.host, one.target("tags/list"), wire.authorization(one, login=LOGIN)).status == 200
            for one in public.values()
        )

    yield network.blackholed
    wait_for(back, "everything as before", 60)
    # A probe comes every 15 s at the latest; a test that follows must not get tokens of the box's own.
    wait_for(lambda: not json.loads(entrepot.command("stats", "--json"))["down"], "nothing to be down any more", 60)


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_image_is_pulled_while_the_registry_is_gone(
    kind: str,
    builder: Clients,
    laptop: Clients,
    upstream: Upstream,
    blackholed: Callable[[], AbstractContextManager[None]],
) -> None:
    """By a client that has never pulled it, has no token, and asks with an `Accept` of its own."""
    image = images.build()
    references = [upstream.publish(each, image).image for each in (world.DOCKER_HUB, world.QUAY, world.GITLAB)]
    for reference in references:
        builder["podman"].pull(reference)
    builder["podman"].forget()
    with blackholed():
        for reference in references:
            laptop[kind].pull(reference)
            assert laptop[kind].held(reference).is_same_as(image)
            laptop[kind].forget()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("registry", [world.DOCKER_HUB, world.BASIC], ids=lambda each: str(each.name))
def test_a_private_image_is_pulled_by_whom_the_registry_has_admitted(
    registry: world.Registry,
    kind: str,
    builder: Clients,
    laptop: Clients,
    upstream: Upstream,
    blackholed: Callable[[], AbstractContextManager[None]],
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
