"""The paths of the registry API, and everything that only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry.digests import Digest
from entrepot.registry.routes import (
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    Ping,
    ReferrersRoute,
    Route,
    TagsRoute,
    TokenRoute,
    UploadRoute,
    parse_target,
)

HEX = "0123456789abcdef" * 4
D = Digest("sha256", HEX)
D512 = Digest("sha512", HEX * 2)

CANONICAL: list[tuple[str, Route]] = [
    ("/v2/", Ping()),
    ("/v2/_catalog", CatalogRoute()),
    ("/v2/_catalog?n=100&last=x", CatalogRoute(query="n=100&last=x")),
    ("/v2/library/alpine/manifests/3.20", ManifestRoute("library/alpine", "3.20")),
    ("/v2/a/manifests/latest?ns=docker.io", ManifestRoute("a", "latest", query="ns=docker.io")),
    (f"/v2/a/b/c/manifests/sha256:{HEX}", ManifestRoute("a/b/c", D)),
    (f"/v2/a/manifests/{D512}", ManifestRoute("a", D512)),
    (f"/v2/a/manifests/sha256-{HEX}", ManifestRoute("a", f"sha256-{HEX}")),  # the referrers tag
    (f"/v2/a/b/blobs/{D}", BlobRoute("a/b", D)),
    ("/v2/a/b/blobs/uploads/", UploadRoute("a/b")),
    (f"/v2/a/blobs/uploads/?mount={D}&from=b", UploadRoute("a", query=f"mount={D}&from=b")),
    ("/v2/a/blobs/uploads/0b1-x_y.z~=", UploadRoute("a", "0b1-x_y.z~=")),
    ("/v2/a/blobs/uploads/x?_state=a/b%2F?", UploadRoute("a", "x", query="_state=a/b%2F?")),
    ("/v2/a/tags/list", TagsRoute("a")),
    ("/v2/a/tags/list?n=1000", TagsRoute("a", query="n=1000")),
    (f"/v2/a/referrers/{D}", ReferrersRoute("a", D)),
    (f"/v2/a/referrers/{D}?artifactType=x", ReferrersRoute("a", D, query="artifactType=x")),
    # Names made of the API's own words.
    ("/v2/manifests/manifests/manifests", ManifestRoute("manifests", "manifests")),
    (f"/v2/blobs/uploads/blobs/{D}", BlobRoute("blobs/uploads", D)),
    ("/v2/tags/list/tags/list", TagsRoute("tags/list")),
    ("/v2/v2/v2/manifests/v2", ManifestRoute("v2/v2", "v2")),
    ("/v2/a/blobs/uploads/list", UploadRoute("a", "list")),
]


@pytest.mark.parametrize(("target", "route"), CANONICAL)
def test_there_and_back(target: str, route: Route) -> None:
    assert parse_target(target) == route
    assert route.target == target
    assert route.path == target.partition("?")[0]


@pytest.mark.parametrize(
    ("target", "asks"),
    [
        ("/token?service=registry.docker.io&scope=repository:a:pull", True),
        ("/token/?scope=aws&service=public.ecr.aws", True),
        ("/v2/auth?account=x&service=quay.io", True),
        ("/v2/token?scope=repository%3Aa%3Apull", True),
        ("/jwt/auth?client_id=docker&service=container_registry", True),
        ("/oauth2/token?scope=a", True),
        ("/proxy_auth?scope=a", True),
        ("/service/token?service=harbor-registry", True),
        ("/token", False),
        ("/oauth2/exchange", False),
        ("/token?state=scope=1", False),
        ("/token?myscope=1", False),
    ],
)
def test_token_services(target: str, asks: bool) -> None:
    route = parse_target(target)
    assert isinstance(route, TokenRoute)
    assert (route.target, route.asks) == (target, asks)
    assert route.path == target.partition("?")[0]
    assert "client_id" not in repr(route)


def test_a_manifest_called_like_a_token_service_is_a_manifest() -> None:
    assert parse_target("/v2/a/manifests/token?scope=x") == ManifestRoute("a", "token", query="scope=x")
    assert parse_target("/v2/token/manifests/auth") == ManifestRoute("token", "auth")


@pytest.mark.parametrize(
    ("target", "canonical"),
    [
        ("/v2", "/v2/"),
        ("/v2?x", "/v2/?x"),
        ("/v2/a/blobs/uploads", "/v2/a/blobs/uploads/"),
        (f"/v2/a/blobs/sha256%3A{HEX}", f"/v2/a/blobs/sha256:{HEX}"),
        (f"/v2/a/blobs/sha256%3a{HEX}", f"/v2/a/blobs/sha256:{HEX}"),
        ("/v2/%61/manifests/%31", "/v2/a/manifests/1"),
        ("/v2/a/tags/list?", "/v2/a/tags/list"),
    ],
)
def test_other_spellings_come_back_canonical(target: str, canonical: str) -> None:
    route = parse_target(target)
    assert route is not None
    assert route.target == canonical


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "*",
        "v2/",
        "/v1/_ping",
        "/v1/search?q=x",
        "/v2x",
        "/v20/",
        "/V2/",
        "//v2/",
        "/v2//",
        "/tokens?scope=x",
        "/token.txt",
        "/token/x",
        "/exchange",
        "/a//token",
        "/../token",
        "/a/./token",
        "/%61/token",
        "token",
        "//token",
        "/a b/token",
        "https://quay.io/v2/",
        "http://quay.io/v2/a/tags/list",
        "/v2/_catalog/",
        "/v2/a",
        "/v2/a/",
        "/v2/manifests/latest",
        "/v2//manifests/latest",
        "/v2/a/manifests/",
        "/v2/a/manifests/.hidden",
        "/v2/a/manifests/latest/",
        "/v2/a/manifests/latest#x",
        "/v2/a/manifests/sha256:123",
        f"/v2/a/manifests/sha256:{HEX.upper()}",
        f"/v2/a/manifests/sha384:{HEX}",
        "/v2/a/blobs/latest",
        "/v2/a/blobs/",
        f"/v2/a/blobs/{HEX}",
        f"/v2/a/blob/{D}",
        "/v2/a/tags/",
        "/v2/a/tags/all",
        "/v2/a/referrers/latest",
        "/v2/uploads/x",
        "/v2/a/uploads/x",
        "/v2/blobs/uploads/x",
        "/v2/a/blobs/uploads/x/y",
        "/v2/a/blobs/uploads/..",
        "/v2/a/blobs/uploads/.",
        "/v2/a/blobs/uploads/a b",
        # Traps of path handling.
        f"/v2/../a/blobs/{D}",
        f"/v2/a/../b/blobs/{D}",
        f"/v2/./a/blobs/{D}",
        f"/v2/a//b/blobs/{D}",
        f"/v2/a%2Fb/blobs/{D}",
        f"/v2/a%2fb/blobs/{D}",
        f"/v2/a/blobs%2F{D}",
        f"/v2/%2e%2e/a/blobs/{D}",
        f"/v2/a%252fb/blobs/{D}",
        f"/v2/a%00/blobs/{D}",
        f"/v2/a%5cb/blobs/{D}",
        f"/v2/a%zz/blobs/{D}",
        "/v2/a/manifests/x%",
        "/v2/a/manifests/x%4",
        "/v2/a/manifests/%3F",
        "/v2/a\\b/manifests/x",
        "/v2/A/manifests/x",
        "/v2/a/manifests/x\r\nHost: y",
        "/v2/a/manifests/\u00e9",
        "/v2/\u212a/manifests/x",
        "/%76%32/a/manifests/x",
        "/v2/" + "a/" * 129 + "manifests/x",
    ],
)
def test_not_the_registry_api(target: str) -> None:
    assert parse_target(target) is None


TARGETS = st.lists(
    st.sampled_from(
        f"v2 a manifests blobs uploads tags list referrers _catalog .. . %2F %2e %41 {D} latest A ? # %".split()
    ),
    max_size=9,
).map(lambda parts: "/v2/" + "/".join(parts))


@given(st.one_of(st.text(), TARGETS))
def test_any_target_is_a_route_or_none_and_a_route_is_stable(target: str) -> None:
    route = parse_target(target)
    if route is None:
        return
    assert parse_target(route.target) == route
    assert "//" not in route.path
    assert "%" not in route.path
    assert not {"..", "."} & set(route.path.split("/"))
