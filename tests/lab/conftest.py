"""The lab's fixtures: one network, one upstream and one Entrepot for the whole run; see `world` for the map.

The lab needs root and the packages in `packages.txt`. Without them its tests are skipped with the reason; in CI
(`CI=true`) that is a failure, so that nobody's green run is an empty one.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.lab import world
from tests.lab.clients import Clients
from tests.lab.net import Network
from tests.lab.product import Entrepot
from tests.lab.trust import trust_by_hand, trust_entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

PROGRAMS = (
    *("buildah", "containerd", "ctr", "docker", "dockerd", "podman", "skopeo"),
    *("dnsmasq", "docker-registry", "nginx", "gcc"),
    *("curl", "ip", "nsenter", "unshare", "update-ca-certificates"),
)


def missing() -> str | None:
    """Why the lab cannot run here."""
    if os.geteuid() != 0:
        return "the lab needs root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if absent:
        return f"the lab needs {', '.join(absent)}: see tests/lab/packages.txt"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    if tried.returncode:
        return f"the lab needs namespaces: {tried.stderr.decode().strip()}"
    return None


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    reason = missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    made = Network(tmp_path_factory.mktemp("logs"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def upstream(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    made = Upstream(network.upstream, tmp_path_factory.mktemp("upstream"))
    yield made
    made.discard_images()


@pytest.fixture(scope="session")
def direct(network: Network, upstream: Upstream) -> Clients:
    """Clients that know nothing of Entrepot: they resolve, reach and trust the upstream itself."""
    trust_by_hand(network.direct, upstream.authority.pem)
    return Clients(network.direct)


@pytest.fixture(scope="session")
def entrepot(network: Network, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entrepot]:
    """The Entrepot that the clients' DNS points to. Tests that stop theirs take `own_entrepot`."""
    product = Entrepot(network.cache, tmp_path_factory.mktemp("entrepot"), upstream.ca_file)
    product.start()
    yield product
    product.stop()


@pytest.fixture(scope="session")
def builder(network: Network, entrepot: Entrepot) -> Clients:
    """Clients on a build host that uses Entrepot's DNS and trusts Entrepot's CA, and no other."""
    trust_entrepot(network.builder, entrepot.ca_file)
    return Clients(network.builder)


@pytest.fixture(scope="session")
def laptop(network: Network, entrepot: Entrepot) -> Clients:
    """Clients on a second host of the same kind, which never logs in anywhere."""
    trust_entrepot(network.laptop, entrepot.ca_file)
    return Clients(network.laptop)


@pytest.fixture(scope="session")
def wire(network: Network, entrepot: Entrepot) -> Wire:
    """HTTPS by hand from the laptop, through Entrepot."""
    return Wire(network.laptop, entrepot.ca_file)


@pytest.fixture(scope="session")
def direct_wire(network: Network, upstream: Upstream) -> Wire:
    """HTTPS by hand, to the upstream itself."""
    return Wire(network.direct, upstream.ca_file)


@pytest.fixture
def own_entrepot(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    """An Entrepot for one test, running, on the cache's second address, with a store of its own and the usual CA."""
    folder = tmp_path_factory.mktemp("own")
    product = Entrepot(network.cache, folder, upstream.ca_file, world.CACHE_SECOND, entrepot.certs)
    product.start()
    yield product
    product.stop()


@pytest.fixture
def own_wire(network: Network, own_entrepot: Entrepot) -> Wire:
    """HTTPS by hand through `own_entrepot`."""
    return Wire(network.laptop, own_entrepot.ca_file, own_entrepot.address)
