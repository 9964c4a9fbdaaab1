"""An upstream that is away (rule 5): what is held is served, and what failed meanwhile is not held against anybody."""

import pytest
from tests.lab import images, world
from tests.lab.net import Network, wait_for
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
