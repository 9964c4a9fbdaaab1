import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrepot.config import Config, ConfigError, load
from entrepot.config.errors import ConfigError as SameError

NOWHERE = Path("/nonexistent/entrepot.toml")


def write(folder: Path, text: str) -> Path:
    file = folder / "entrepot.toml"
    file.write_text(text)
    return file


def test_no_file_at_all() -> None:
    loaded = load(None, {}, system_file=NOWHERE)
    assert loaded.config == Config()
    assert loaded.path is None


def test_the_system_file_is_read_if_there_is_one(tmp_path: Path) -> None:
    file = write(tmp_path, '[dns]\nttl = "1m"\n')
    loaded = load(None, {}, system_file=file)
    assert loaded.config.dns.ttl == 60.0
    assert loaded.path == file


def test_a_file_in_the_current_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, '[dns]\nttl = "1m"\n')
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, system_file=NOWHERE).config == Config()


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[dns]\nttl = "1m"\nallow = ["any"]\n')
    loaded = load(file, {"ENTREPOT_DNS_TTL": "2m"})
    assert loaded.config.dns.ttl == 120.0
    assert loaded.origin["dns.ttl"] == "ENTREPOT_DNS_TTL"
    assert loaded.origin["dns.allow"] == f"{file}:3"


def test_a_mistake_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, '# a comment\n[dns]\nttl = "30s"\n\ntll = "30s"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(Path("entrepot.toml"), {})
    assert str(caught.value) == 'entrepot.toml:5: dns.tll: unknown key; did you mean "ttl"?'


def test_paths_are_relative_to_the_file_and_absolute_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '[store]\npath = "cache"\n')
    monkeypatch.chdir(tmp_path.parent)
    loaded = load(Path(tmp_path.name, "entrepot.toml"), {"ENTREPOT_CERTS_PATH": "ca"})
    assert loaded.config.store.path == tmp_path / "cache"
    assert loaded.config.certs.path == tmp_path.parent / "ca"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[dns]\nttl = \n", ":2: not valid TOML: invalid value, column 7"),
        (b"[dns]\n\nttl", ":3: not valid TOML: expected '=' after a key in a key/value pair"),
        (b"[dns]\n[dns]\n", ":2: not valid TOML: cannot declare"),
        (b"\xff", ": is not UTF-8 text (byte 0)"),
        (b"a = " + b"[" * 5000, ": is nested too deeply"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "entrepot.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}{message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        load(tmp_path / "nope.toml", {})
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, {})


def test_the_error_is_a_value_error_of_ours() -> None:
    assert SameError is ConfigError
    assert issubclass(ConfigError, ValueError)


_PIECES = (
    *("[dns]\n", "[store]\n", "[registries.'quay.io']\n", "[registries.a.b]\n", "[[a]]\n", "\n", "#", "\0", "é"),
    *("ttl", "size", "hosts", "credentials", " = ", "'30s'", "30", "[", "]", "{}", ",", "'", "['x']", "{helper='x'}"),
)
_TEXT = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


@given(_TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_loads_or_raises_our_error(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    try:
        assert load(file, {}).path == file
    except ConfigError as refusal:
        assert str(refusal).startswith(str(file))


def test_how_long_tags_are_believed_by_pattern(tmp_path: Path) -> None:
    file = tmp_path / "entrepot.toml"
    file.write_text('[policy]\ntag_ttls = { "*:v*" = "forever", "quay.io/org/app:1" = "5m" }\n')
    found = load(file, {}).config
    assert found.policy.tag_ttls == (("*:v*", float("inf")), ("quay.io/org/app:1", 300.0))
    assert Config.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert load(None, {"ENTREPOT_POLICY_TAG_TTLS": "*:v*=forever, a/b:c=1s"}).config.policy.tag_ttls == (
        ("*:v*", float("inf")),
        ("a/b:c", 1.0),
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{ "nginx" = "5m" }', "must be REGISTRY/REPOSITORY:TAG"),
        ('{ "*:a/b" = "5m" }', "must be REGISTRY/REPOSITORY:TAG"),
        ('{ "*:v*" = "never" }', 'or "forever"'),
        ('"*:v*"', "must be a table, in curly brackets"),
    ],
)
def test_patterns_that_mean_nothing(tmp_path: Path, value: str, problem: str) -> None:
    file = tmp_path / "entrepot.toml"
    file.write_text(f"[policy]\ntag_ttls = {value}\n")
    with pytest.raises(ConfigError, match=re.escape(problem)) as refused:
        load(file, {})
    assert "entrepot.toml:2: policy.tag_ttls: " in str(refused.value)
