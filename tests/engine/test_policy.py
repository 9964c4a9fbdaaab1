"""For how long things are believed."""

from dataclasses import replace
from math import inf

import pytest

from entrepot.engine.policy import Policy
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.entries import Registry

PATTERNS = (("docker.io/library/*:latest", 300.0), ("*:v*", inf), ("quay.io/org/*", 10.0), ("docker.io/a.b:*", 20.0))


def registry(name: str) -> Registry:
    found = Catalogue.builtin().match(name)
    assert found is not None
    return found.registry


@pytest.mark.parametrize(
    ("name", "repository", "tag", "ttl"),
    [
        ("docker.io", "library/nginx", "latest", 300.0),
        ("docker.io", "library/nginx", "1.27", 60.0),
        ("docker.io", "library/nginx", "v1", inf),
        ("ghcr.io", "deep/down/app", "v1.2.3", inf),
        ("quay.io", "org/app", "v1", inf),  # the first that fits
        ("quay.io", "org/app", "1", 10.0),
        ("quay.io", "other/app", "1", 60.0),
        ("docker.io", "a.b", "1", 20.0),
        ("docker.io", "axb", "1", 60.0),  # a dot is a dot
    ],
)
def test_tags_by_pattern(name: str, repository: str, tag: str, ttl: float) -> None:
    assert Policy(tag=60.0, tags=PATTERNS).tag_ttl(registry(name), repository, tag) == ttl


def test_what_a_registry_says_itself_goes_before() -> None:
    quay = replace(
        registry("quay.io"), tag_ttl=5.0, tag_ttls=(("*:x", 7.0),), prefetch="off", stale_while_revalidate=3.0
    )
    policy = Policy(tag=60.0, tags=PATTERNS, prefetch=True, stale=1.0)
    assert policy.tag_ttl(quay, "org/app", "x") == 7.0
    assert policy.tag_ttl(quay, "org/app", "v1") == 5.0
    assert not policy.prefetches(quay)
    assert policy.prefetches(registry("ghcr.io"))
    assert (policy.stale_while(quay), policy.stale_while(registry("ghcr.io"))) == (3.0, 1.0)
