from pathlib import Path

import pytest

from entrepot.config import ConfigError, Loaded
from entrepot.config.build import Draft, Problems, build
from entrepot.config.environment import overlay, variables


def read(**environ: str) -> Loaded:
    problems = Problems()
    draft = Draft()
    overlay(draft, environ, Path("/here"), problems)
    return build(draft, problems)


def test_scalars_lists_and_words() -> None:
    loaded = read(
        ENTREPOT_LISTEN_HTTPS="8443",
        ENTREPOT_LISTEN_ADDRESS="10.0.0.5, ::1",
        ENTREPOT_DNS_FAIL_OPEN="false",
        ENTREPOT_POLICY_TAG_TTL="5m",
        ENTREPOT_STORE_PATH="cache",
        ENTREPOT_HOSTED_NAME="registry.internal",
    )
    config = loaded.config
    assert config.listen.https == 8443
    assert config.listen.address == ("10.0.0.5", "::1")
    assert config.dns.fail_open is False
    assert config.policy.tag_ttl == 300.0
    assert config.store.path == Path("/here/cache")
    assert config.hosted.name == "registry.internal"
    assert loaded.origin["listen.https"] == "ENTREPOT_LISTEN_HTTPS"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("ENTREPOT_LISTEN_HTTPS", "x", 'ENTREPOT_LISTEN_HTTPS: listen.https: "x": must be a port'),
        ("ENTREPOT_DNS_ALLOW", "private,nope", 'ENTREPOT_DNS_ALLOW: dns.allow: "nope": must be'),
        ("ENTREPOT_DNS_TLL", "1m", 'ENTREPOT_DNS_TLL: dns.tll: unknown key; did you mean "ENTREPOT_DNS_TTL"?'),
    ],
)
def test_mistakes_name_the_variable(name: str, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{name: text})
    assert str(caught.value).startswith(problem)


def test_empty_counts_as_not_set() -> None:
    assert read(ENTREPOT_DNS_TTL="").origin["dns.ttl"] == "default"


def test_other_peoples_variables_are_left_alone() -> None:
    read(
        PATH="/bin",
        ENTREPOT_SERVICE_HOST="10.0.0.1",
        ENTREPOT_SERVICE_PORT="443",
        ENTREPOT_SERVICE_PORT_HTTPS="443",
        ENTREPOT_PORT="tcp://10.0.0.1:443",
        ENTREPOT_PORT_443_TCP="tcp://10.0.0.1:443",
        ENTREPOT_PORT_443_TCP_ADDR="10.0.0.1",
        ENTREPOT_DNS_SERVICE_HOST="10.0.0.2",
        ENTREPOT_DNS_PORT_53_UDP_PROTO="udp",
    )


def test_no_variable_of_ours_is_taken_for_one_of_kubernetes() -> None:
    draft = Draft()
    overlay(draft, dict.fromkeys(variables(), "x"), Path("/here"), Problems())
    assert {(section, key) for section, keys in draft.sections.items() for key in keys} == set(variables().values())
