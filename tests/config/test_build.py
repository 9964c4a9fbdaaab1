"""What the reader makes of documents; `test_load.py` has the same with files and lines."""

from pathlib import Path

import pytest

from entrepot.config import Config, ConfigError
from entrepot.config.build import Draft, Loaded, Place, Problems, Raw, build, dotted, nearest, read_document
from entrepot.config.locate import KeyPath
from entrepot.config.registries import PasswordFile


def read(document: dict[str, object], base: Path = Path("/etc")) -> Loaded:
    def where(path: KeyPath) -> Place:
        return Place("file", 1, base)

    problems = Problems()
    return build(read_document(document, where, problems), problems)


def problems_of(document: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(document)
    return caught.value.problems


def test_nothing_is_the_default() -> None:
    loaded = read({})
    assert loaded.config == Config()
    assert set(loaded.origin.values()) == {"default"}


def test_values_and_where_they_came_from() -> None:
    loaded = read({"dns": {"ttl": "1m"}, "registries": {"Quay.io": {"tag_ttl": "5m"}}})
    assert loaded.config.dns.ttl == 60.0
    assert loaded.config.registries[0].name == "quay.io"
    assert loaded.origin["dns.ttl"] == "file"
    assert loaded.origin["dns.allow"] == "default"
    assert loaded.origin['registries."quay.io".tag_ttl'] == "file"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"dns": {"tll": 1}}, 'file: dns.tll: unknown key; did you mean "ttl"?'),
        ({"dns": {"qqqqqq": 1}}, "file: dns.qqqqqq: unknown key"),
        ({"listn": {}}, 'file: listn: unknown section; did you mean "listen"?'),
        ({"ttl": 1}, "file: ttl: unknown key outside of any section"),
        ({"dns": 5}, "file: dns: must be a section: [dns]"),
        ({"registries": {"a b": {}}}, 'file: registries."a b": the name of a registry must be a host name'),
        ({"registries": {"quay.io": 1}}, 'must be a section: [registries."quay.io"]'),
        ({"registries": {"quay": {"io": {"tag_ttl": "5m"}}}}, '[registries."quay.io"]'),
        ({"registries": {"quay.io": {}, "Quay.io": {}}}, "the registry quay.io has a section already"),
        (
            {"registries": {"quay.io": {"upstrem": ""}}},
            'registries."quay.io".upstrem: unknown key; did you mean "upstream"?',
        ),
        ({"listen": {"https": 99999}}, "file: listen.https: 99999: must be a port from 1 to 65535, or 0 for off"),
        ({"dns": {"allow": ["private", "x/8"]}}, 'file: dns.allow: "x/8": must be "private", "any" or a network'),
        ({"listen": {"proxy": 443}}, "file: listen.proxy: 443: is the port of listen.https too"),
        ({"listen": {"https": 3128}}, "file: listen.proxy: 3128: is the port of listen.https too"),
        ({"listen": {"https": 0, "dns": 0, "proxy": 0, "web": 0}}, "every port is 0"),
        (
            {"registries": {"a.example": {"hosts": ["x.example"]}, "b.example": {"token_hosts": ["x.example"]}}},
            'registries."b.example": "x.example": is a host of registry a.example too',
        ),
        (
            {"registries": {"*.azurecr.io": {"credentials": {"username": "u", "password_file": "/p"}}}},
            'registries."*.azurecr.io".credentials: one password is not for a whole family of registries: must be',
        ),
        ({"registries": {"quay.io": {"share": "all"}}}, 'share: "all": must be "off" or "public"'),
    ],
)
def test_mistakes(document: dict[str, object], problem: str) -> None:
    (found,) = problems_of(document)
    assert problem in found


def test_a_secret_is_not_quoted() -> None:
    (found,) = problems_of({"registries": {"quay.io": {"credentials": {"password": "hunter2"}}}})
    assert "hunter2" not in found


def test_all_mistakes_are_told_and_the_message_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"dns": {"ttl": "x", "tll": 1}, "store": {"size": "y"}})
    assert len(caught.value.problems) == 3
    assert str(caught.value).endswith("(and 2 more: see `entrepot config check`)")
    assert "\n" not in str(caught.value)


def test_the_same_port_off_twice_is_no_clash() -> None:
    assert read({"listen": {"proxy": 0, "web": 0}}).config.listen.web == 0


def test_paths_are_relative_to_the_file() -> None:
    config = read(
        {
            "store": {"path": "cache"},
            "certs": {"path": "/srv/ca"},
            "registries": {"quay.io": {"ca": ["q.pem"], "credentials": {"username": "u", "password_file": "p"}}},
        }
    ).config
    assert config.store.path == Path("/etc/cache")
    assert config.certs.path == Path("/srv/ca")
    assert config.registries[0].ca == (Path("/etc/q.pem"),)
    assert config.registries[0].credentials == PasswordFile("u", Path("/etc/p"))


def test_problems_come_in_the_order_of_the_file() -> None:
    problems = Problems()
    draft = Draft()
    draft.sections["dns"] = {"ttl": Raw("x", Place("f:9", 9, Path("/")))}
    draft.sections["store"] = {"size": Raw("x", Place("f:3", 3, Path("/")))}
    with pytest.raises(ConfigError) as caught:
        build(draft, problems)
    assert [problem[:3] for problem in caught.value.problems] == ["f:3", "f:9"]


def test_names() -> None:
    assert dotted("registries", "quay.io", "tag_ttl") == 'registries."quay.io".tag_ttl'
    assert nearest("upstreem", ["upstream", "store"]) == '; did you mean "upstream"?'
    assert nearest("zzz", ["upstream"]) == ""
