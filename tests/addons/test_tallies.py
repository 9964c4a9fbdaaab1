"""Names of counts: few, whatever is asked for."""

from entrepot.addons.tallies import Tallies
from entrepot.counters import labels_of
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.routes import parse_target

TALLIES = Tallies(Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream="http://127.0.0.1:1")]))


def test_by_registry_verdict_and_kind() -> None:
    kinds = {
        "/v2/": "ping",
        "/v2/a/manifests/1": "manifest",
        f"/v2/a/blobs/sha256:{'0' * 64}": "blob",
        "/v2/a/tags/list": "list",
        f"/v2/a/referrers/sha256:{'0' * 64}": "list",
        "/token?service=x": "token",
        "/": "other",
    }
    for target, kind in kinds.items():
        name, labels = labels_of(TALLIES("registry.test", "hit", parse_target(target)))
        assert (name, labels) == ("requests", {"registry": "registry.test", "verdict": "hit", "kind": kind})


def test_registries_beyond_those_that_are_known_are_one() -> None:
    assert {TALLIES(name, "hit", None) for name in ("a.example", "b.example", "")} == {
        TALLIES("c.example", "hit", None)
    }
