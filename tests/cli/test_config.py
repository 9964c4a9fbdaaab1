import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.certs.authority import Authority
from entrepot.cli.config import as_object, as_toml, toml
from entrepot.cli.main import run
from entrepot.config import load

EXAMPLE = Path(__file__).parents[2] / "entrepot.toml"


def write(folder: Path, text: str) -> Path:
    file = folder / "entrepot.toml"
    file.write_text(text)
    return file


def check(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    code = run(["config", "check", "--config", str(file)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_the_example_has_no_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(EXAMPLE, capsys) == (0, [f"{EXAMPLE}: no mistakes"], [])


def test_every_mistake_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, '[dns]\ntll = "1s"\nttl = "x"\n')
    code, out, err = check(file, capsys)
    assert (code, out) == (2, [])
    assert err[0] == f'{file}:2: dns.tll: unknown key; did you mean "ttl"?'
    assert err[1].startswith(f'{file}:3: dns.ttl: "x": must be')
    assert len(err) == 2


def test_what_it_points_to_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = """
[web]
admin_token_file = "token"
[registries."quay.io"]
ca = ["q.pem"]
credentials = { username = "u", password_file = "password" }
[registries."ghcr.io"]
credentials = { helper = "nope" }
[registries."docker.io"]
credentials = { docker_config = "config.json" }
"""
    file = write(tmp_path, text)
    code, _, err = check(file, capsys)
    assert code == 2
    assert err == [
        f"{file}:3: web.admin_token_file: {tmp_path}/token: no such file or directory",
        f'{file}:5: registries."quay.io".ca: {tmp_path}/q.pem: no such file or directory',
        f'{file}:6: registries."quay.io".credentials: {tmp_path}/password: no such file or directory',
        f'{file}:8: registries."ghcr.io".credentials: there is no program docker-credential-nope on the PATH',
        f'{file}:10: registries."docker.io".credentials: {tmp_path}/config.json: no such file or directory',
    ]
    for name in ("token", "q.pem"):
        (tmp_path / name).touch()
    helper = tmp_path / "docker-credential-nope"
    helper.touch(mode=0o755)
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "config.json").write_text('{"auths":{"https://index.docker.io/v1/":{"auth":"dTpodW50ZXIy"}}}')
    for name in ("password", "config.json"):
        (tmp_path / name).chmod(0o644)
    code, _, err = check(file, capsys)
    assert code == 2
    wrong = "other users can read or change it, so it is not used; run `chmod o= "
    assert err == [
        f'{file}:6: registries."quay.io".credentials: {tmp_path}/password: {wrong}{tmp_path}/password`',
        f'{file}:10: registries."docker.io".credentials: {tmp_path}/config.json: {wrong}{tmp_path}/config.json`',
    ]
    for name in ("password", "config.json"):
        (tmp_path / name).chmod(0o640)
    assert check(file, capsys)[0] == 0


def test_a_docker_config_without_an_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
[registries."quay.io"]
credentials = { docker_config = "config.json" }
[registries."*.azurecr.io"]
credentials = { docker_config = "config.json" }
"""
    file = write(tmp_path, text)
    (tmp_path / "config.json").write_text("{}")
    code, _, err = check(file, capsys)
    assert code == 2
    assert err == [f'{file}:3: registries."quay.io".credentials: {tmp_path}/config.json: has nothing for quay.io']


def test_what_will_surprise_about_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
[registries."quay.io"]
share = "public"
[registries."registry.example"]
upstream = "http://registry.example"
credentials = { username = "u", password_file = "password" }
"""
    file = write(tmp_path, f'[certs]\npath = "ca"\n{text}')
    (tmp_path / "password").write_text("hunter2")
    (tmp_path / "password").chmod(0o600)
    code, out, err = check(file, capsys)
    assert (code, err) == (0, [])
    assert out == [
        'note: registries."quay.io": share has no effect without credentials',
        'note: registries."registry.example": credentials go over the network in clear: http://registry.example is '
        "not https",
        f"{file}: no mistakes",
    ]


def test_entries_that_the_catalogue_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, '[registries."registry.example"]\nhosts = ["quay.io"]\n')
    code, _, err = check(file, capsys)
    assert code == 2
    assert err[0].startswith(f"{file}: registries: host 'quay.io' is claimed by")


def test_names_beyond_the_ca_are_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, '[certs]\npath = "ca"\n[registries."registry.example"]\n')
    assert check(file, capsys)[1] == [f"{file}: no mistakes"]
    Authority.create(tmp_path / "ca", ["quay.io"], now=datetime.now(UTC))
    code, out, err = check(file, capsys)
    assert (code, err) == (0, [])
    assert out[0].startswith("note: the CA cannot sign for ")
    assert "registry.example" in out[0]
    assert "quay.io" not in out[0].replace(", ", " ").split()
    assert "`entrepot ca rotate`" in out[0]


def test_a_ca_that_is_broken_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, '[certs]\npath = "ca"\n')
    Authority.create(tmp_path / "ca", ["quay.io"], now=datetime.now(UTC))
    (tmp_path / "ca/current/issuers.key").chmod(0o644)
    code, out, _ = check(file, capsys)
    assert code == 0
    assert "can be read by others" in out[0]


def test_no_file_no_mistakes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.cli.options.load", lambda path, environ: load(path, {}, system_file=Path("/none")))
    assert run(["config", "check"]) == 0
    assert "the defaults are in force" in capsys.readouterr().out


FULL = """
[listen]
address = ["10.0.0.5", "::1"]
[store]
size = "60%"
[web]
admin_token_file = "/etc/to\\"ken"
[registries."quay.io"]
tag_ttl = "5m"
credentials = { username = "u", password_file = "/p" }
[registries."registry.example:5000"]
upstream = "http://10.0.0.9:5000"
[registries."empty.example"]
"""


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, FULL), {"ENTREPOT_DNS_TTL": "1m"})
    shown = "\n".join(as_toml(loaded))
    again = load(write(tmp_path, shown), {})
    assert again.config == loaded.config
    assert "default" not in again.origin.values()


def test_each_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path, FULL)
    lines = list(as_toml(load(file, {"ENTREPOT_DNS_TTL": "1m"})))
    assert any(line.startswith('size = "60%" ') and line.endswith(f"# {file}:5") for line in lines)
    assert any(line.startswith('ttl = "1m" ') and line.endswith("# ENTREPOT_DNS_TTL") for line in lines)
    assert any(line.startswith("https = 443 ") and line.endswith("# default") for line in lines)


def test_as_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, FULL)
    assert run(["config", "show", "--json", "--config", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(json.dumps(as_object(load(file, {}))))
    assert shown["file"] == str(file)
    assert shown["values"]["listen.https"] == {"value": 443, "origin": "default"}
    assert shown["values"]['registries."quay.io".tag_ttl'] == {"value": "5m", "origin": f"{file}:9"}


@given(st.recursive(st.text() | st.booleans() | st.integers(-(2**60), 2**60), st.lists, max_leaves=4))
def test_values_are_toml(value: object) -> None:
    text = toml(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no file holds one
        return
    assert tomllib.loads(f"key = {text}")["key"] == value
