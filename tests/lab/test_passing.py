"""What Entrepot leaves alone (rule 11): other paths, other names, and connections that are not what they say."""

import ssl

import pytest
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import Network
from tests.lab.product import Entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("host", ["quay.io", "gitlab.com", "ghcr.io", "registry.example.com"])
def test_other_pages_of_an_intercepted_host(host: str, wire: Wire, direct_wire: Wire, upstream: Upstream) -> None:
    with upstream.watched() as seen:
        page = wire.ask(host, "/repository/x?tab=tags", {"Cookie": "session=1", "Accept": "text/html"})
        posted = wire.ask(host, "/search", {"Content-Type": "text/plain"}, method="POST", body=b"x" * 100_000)
    theirs = direct_wire.ask(host, "/repository/x?tab=tags")
    assert (page.status, page.headers["Content-Type"], page.body) == (200, "text/html; charset=utf-8", theirs.body)
    assert posted.status == 200
    asked, sent = seen
    assert (asked.host, asked.path, asked.headers["cookie"]) == (host, "/repository/x", "session=1")
    assert (asked.sni, sent.sni) == (host, host)
    assert (sent.method, sent.headers["content-length"]) == ("POST", "100000")


def test_tags_and_pages_on_one_connection(wire: Wire, upstream: Upstream) -> None:
    """A pull, a page and another part of the API may share a connection."""
    image = images.build()
    repository = upstream.publish(world.MICROSOFT, image)
    host, config = repository.host, repository.target(f"blobs/{image.config.digest}")
    tags = f'{{"name":"{repository.path}","tags":["{world.TAG}"]}}\n'
    connection = wire.open(host)
    try:
        for target, expected in (
            ("/v2/", b"{}"),
            (config, image.config.data),
            (repository.target("tags/list"), tags.encode()),
            ("/catalog", f"<p>{host} has this at /catalog</p>\n".encode()),
            (config, image.config.data),
        ):
            connection.request("GET", target)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, expected), target
    finally:
        connection.close()


def test_names_outside_the_catalogue_are_untouched(network: Network, builder: Clients, upstream: Upstream) -> None:
    """DNS gives out their real address, and their own certificate comes back."""
    assert network.builder.lookup(world.OUTSIDE) == {world.addresses()[world.OUTSIDE]}
    wire = Wire(network.builder, upstream.ca_file)
    with upstream.watched() as seen:
        assert wire.ask(world.OUTSIDE, "/").status == 200
    assert [each.host for each in seen] == [world.OUTSIDE]
    for registry in world.REGISTRIES:
        if registry.cdn is not None:  # content networks need no interception
            assert network.builder.lookup(registry.cdn) == {world.addresses()[registry.cdn]}
    assert network.builder.lookup("no-such-name.example.net") == set()


@pytest.mark.parametrize("name", [world.OUTSIDE, "evil.quay.io.example.net", "cdn01.quay.io", "example.com"])
def test_other_names_are_refused_in_the_handshake(
    name: str, network: Network, entrepot: Entrepot, upstream: Upstream
) -> None:
    """Not an open proxy: whatever the address says, TLS is not spoken for names that are not registries'."""
    wire = Wire(network.laptop, entrepot.ca_file, world.CACHE)
    wire.context.check_hostname = False
    wire.context.verify_mode = ssl.CERT_NONE
    with upstream.watched() as seen, pytest.raises((ssl.SSLError, ConnectionError)):
        wire.tls(name).close()
    assert seen == []


def test_curl_sees_that_refusal_too(network: Network, entrepot: Entrepot) -> None:
    resolve = f"{world.OUTSIDE}:443:{world.CACHE}"
    script = f"curl --silent --show-error --insecure --resolve {resolve} https://{world.OUTSIDE}/; echo status=$?"
    told = network.laptop.run("sh", "-c", script + " 2>&1")
    assert "status=35" in told or "status=56" in told, told


@pytest.mark.parametrize("target", ["/v2/", "/v2/org/app/manifests/1", "/repository/x"])
def test_sni_and_host_must_agree(target: str, wire: Wire, upstream: Upstream) -> None:
    """421 for a request that was meant for another name than the connection, and nothing goes upstream."""
    with upstream.watched() as seen:
        for host in ("ghcr.io", world.OUTSIDE, "10.91.2.2"):
            assert wire.ask(host, target, sni="quay.io").status == 421
    assert seen == []


@pytest.mark.parametrize("host", ["quay.io:443", "QUAY.IO", "quay.io."])
def test_ways_to_write_the_same_host(host: str, wire: Wire) -> None:
    assert wire.ask(host, "/v2/", sni="quay.io").status == 401


@pytest.mark.parametrize(
    "target",
    [
        "https://ghcr.io/v2/",
        f"https://{world.OUTSIDE}/x",
        f"http://{world.OUTSIDE}/x",
        f"http://{world.UPSTREAM_DNS}/x",
        "http://127.0.0.1:443/",
    ],
)
def test_a_target_with_a_host_of_its_own_leads_nowhere(target: str, wire: Wire, upstream: Upstream) -> None:
    """The absolute form takes precedence over `Host` (RFC 9112 3.2.2), so it too must name the connection's host."""
    with upstream.watched() as seen:
        assert wire.ask("quay.io", target, {"Host": "quay.io"}).status in {400, 421}
    assert seen == []


def test_the_absolute_form_of_the_same_host_is_accepted(wire: Wire) -> None:
    """As RFC 9112 3.2.2 asks of servers, though no registry client sends it."""
    assert wire.ask("quay.io", "https://quay.io/v2/").status == 401
    assert wire.ask("quay.io", "https://quay.io/repository/x").status == 200


def test_connect_leads_nowhere(wire: Wire, upstream: Upstream) -> None:
    connection = wire.open("quay.io")
    try:
        with upstream.watched() as seen:
            connection.request("CONNECT", f"{world.OUTSIDE}:443")
            assert connection.getresponse().status in {400, 403, 405, 421}
        assert seen == []
    finally:
        connection.close()
