import json
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

from entrepot.config import Config, ConfigError, Endpoint, Helper, Policy, RegistryEntry, Share, Store
from entrepot.config.model import SECTIONS, Dns, Listen, Web, kinds_of, rendered

FULL = Config(
    listen=Listen(address=("10.0.0.5",), https=8443, workers=3, drain=0.25),
    dns=Dns(
        upstream=(Endpoint("1.2.3.4", 5353), "auto"), allow=("private", ip_network("100.64.0.0/10")), fail_open=False
    ),
    store=Store(path=Path("/srv/store"), size=Share(60.0), min_free=0),
    web=Web(admin_token_file=Path("/etc/token")),
    registries=(
        RegistryEntry("quay.io", tag_ttl=300.0, prefetch="off", credentials=Helper("quay"), share="public"),
        RegistryEntry("registry.example:5000", hosts=("registry.example",), ca=(Path("/ca.pem"),)),
    ),
)


def test_the_configuration_crosses_to_another_process() -> None:
    for config in (Config(), FULL):
        assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_document_that_is_not_ours_is_refused() -> None:
    try:
        Config.from_json({"listen": {"https": "x"}})
    except ConfigError as refusal:
        assert "listen.https" in str(refusal)
    else:
        raise AssertionError("taken")


def test_every_field_has_a_kind_and_every_default_is_one_it_takes() -> None:
    for section in SECTIONS.values():
        assert set(kinds_of(section)) == {item.name for item in fields(section)}
        for key, kind in kinds_of(section).items():
            default = getattr(section(), key)
            assert kind.parse(kind.render(default)) == default, key


def test_every_section_is_a_field_and_the_other_way_round() -> None:
    assert {item.name for item in fields(Config)} == {*SECTIONS, "registries"}


def test_a_registry_may_override_every_key_of_the_policy() -> None:
    assert set(kinds_of(Policy)) <= set(kinds_of(RegistryEntry))


def test_policy_of_a_registry() -> None:
    assert FULL.policy_for("quay.io") == replace(Policy(), tag_ttl=300.0, prefetch="off")
    assert FULL.policy_for("registry.example:5000") == Policy()
    assert FULL.policy_for("ghcr.io") == Policy()


def test_keys_of_a_registry_that_are_not_set_are_not_shown() -> None:
    assert dict(rendered(FULL.registries[1])) == {"hosts": ["registry.example"], "ca": ["/ca.pem"]}
    assert dict(rendered(Web())) == {
        "admin_token_file": "",
        "allow": ["private"],
        "hosts": [],
        "private_images": "loopback",
    }
