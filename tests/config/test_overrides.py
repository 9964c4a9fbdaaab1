from dataclasses import fields
from pathlib import Path

import pytest

from entrepot.config import Config, Helper, RegistryEntry
from entrepot.config.overrides import catalogue, overrides
from entrepot.registry.catalogue import InvalidRegistry, RegistryOverride


def test_no_entries_leave_the_built_in_catalogue() -> None:
    match = catalogue(Config()).match("quay.io")
    assert match is not None
    assert match.registry.upstream == "https://quay.io"


def test_a_new_registry_and_a_changed_one() -> None:
    made = catalogue(
        Config(
            registries=(
                RegistryEntry("registry.example:5000", upstream="http://10.0.0.5:5000", ca=(Path("/ca.pem"),)),
                RegistryEntry("quay.io", tag_ttl=300.0),
                RegistryEntry("*.azurecr.io", tag_ttl=1.0, bandwidth=1000),
            )
        )
    )
    new = made.match("registry.example")
    assert new is not None
    assert new.registry.upstream == "http://10.0.0.5:5000"
    assert new.registry.ca == (Path("/ca.pem"),)
    assert (known := made.match("quay.io")) is not None
    assert known.registry.tag_ttl == 300.0
    assert (family := made.match("acme.azurecr.io")) is not None
    assert (family.registry.tag_ttl, family.registry.bandwidth) == (1.0, 1000)
    assert known.registry.bandwidth is None


def test_a_host_of_a_known_registry_cannot_be_claimed() -> None:
    with pytest.raises(InvalidRegistry):
        catalogue(Config(registries=(RegistryEntry("registry.example", hosts=("quay.io",)),)))


def test_every_field_the_catalogue_takes_is_handed_over() -> None:
    values: dict[str, object] = {
        "name": "a.example", "hosts": ("h",), "token_hosts": ("t",), "upstream": "https://u", "ca": (Path("/c"),),
        "tag_ttl": 1.0, "access_ttl": 2.0, "public_ttl": 3.0, "outage_grace": 4.0, "prefetch": "off", "bandwidth": 5,
        "tag_ttls": (("*:v*", 6.0),), "stale_while_revalidate": 7.0,
        "history": 8, "new_tags": "hold", "cooldown": 9.0, "allow": ("a.example/*",), "deny": ("a.example/x:*",),
        "credentials": Helper("ecr-login"), "share": "public",
    }  # fmt: skip
    (made,) = overrides([RegistryEntry(**values)])  # type: ignore[arg-type]
    assert {item.name: getattr(made, item.name) for item in fields(RegistryOverride)} == values
