import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from entrepot.certs import rotation, stores
from entrepot.certs.authority import Authority
from entrepot.cli.ca import ca
from entrepot.registry.catalogue import Catalogue


class Box:
    """A box with a configuration, and a tree of files to install into."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "lib" / "ca"
        self.config = folder / "entrepot.toml"
        self.config.write_text(f'[certs]\npath = "{self.directory}"\n')
        self.root = folder / "tree"
        (self.root / "etc/docker").mkdir(parents=True)
        (self.root / "etc/os-release").write_text("ID=debian\n")

    def run(self, *arguments: str, stdin: bytes | None = None) -> Result:
        context = {"config_path": str(self.config)}
        return CliRunner().invoke(ca, arguments, obj=context, input=stdin, prog_name="entrepot ca")

    def ok(self, *arguments: str, stdin: bytes | None = None) -> str:
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


@pytest.fixture
def empty(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def box(empty: Box) -> Box:
    Authority.create(empty.directory, Catalogue.builtin().permitted_subtrees(), now=datetime.now(UTC))
    return empty


def authority(box: Box) -> Authority:
    return Authority.load(box.directory)


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["show", "--pem"], ["export"], ["install"], ["uninstall"], ["rotate"], ["rotate", "--finish"]],
)
def test_without_a_ca_one_line_says_so(empty: Box, arguments: list[str]) -> None:
    if "install" in arguments[0]:
        arguments = [*arguments, "--root", str(empty.root)]
    result = empty.run(*arguments)
    assert result.exit_code == 1
    assert result.output == f"Error: there is no CA in {empty.directory} yet; `entrepot up` makes one\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "--pem", "--json"],
        ["rotate", "--finish", "--cancel"],
        ["export", "--format", "jks"],
        ["install", "--store", "windows"],
        ["install", "--root", "/no/such/folder"],
        ["install", "--ca", "/no/such/file"],
        ["sign"],
    ],
)
def test_wrong_usage_is_2(box: Box, arguments: list[str]) -> None:
    assert box.run(*arguments).exit_code == 2


def test_a_broken_configuration_is_2(box: Box) -> None:
    box.config.write_text("[certs]\npaht = 1\n")
    result = box.run("show")
    assert result.exit_code == 2
    assert "entrepot.toml:2" in result.output


def test_show_names_the_ca_and_what_it_can_sign_for(box: Box) -> None:
    said = box.ok("show")
    assert authority(box).fingerprint in said
    assert str(box.directory) in said
    assert "quay.io" in said.split()
    assert "not covered" not in said


def test_show_pem_is_what_clients_trust(box: Box) -> None:
    assert box.ok("show", "--pem").encode() == authority(box).pem


def test_show_json(box: Box) -> None:
    shown = box.read("show")
    assert shown["path"] == str(box.directory)
    assert shown["current"]["fingerprint"] == authority(box).fingerprint
    assert shown["current"]["permitted"] == list(authority(box).permitted)
    assert (shown["next"], shown["previous"], shown["missing"], shown["impossible"]) == (None, None, [], [])


def test_rule_12_show_says_what_is_not_covered(box: Box) -> None:
    text = '[registries."registry.example:5000"]\n[registries."box"]\n[hosted]\nname = "registry.internal"\n'
    box.config.write_text(box.config.read_text() + text)
    shown = box.read("show")
    assert shown["missing"] == ["registry.example", "registry.internal"]
    assert shown["impossible"] == ["box"]
    assert "not covered  registry.example registry.internal: `entrepot ca rotate`" in box.ok("show")
    box.ok("rotate")
    assert box.read("show")["missing"] == []


@pytest.mark.parametrize("form", ["pem", "der", "p7b"])
def test_export_writes_a_certificate_in_each_form(box: Box, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    assert box.ok("export", "--format", form, "--out", str(out)) == ""
    read = {
        "pem": x509.load_pem_x509_certificates,
        "der": lambda content: [x509.load_der_x509_certificate(content)],
        "p7b": pkcs7.load_der_pkcs7_certificates,
    }
    assert read[form](out.read_bytes()) == [authority(box).certificate]
    result = box.run("export", "--format", form)
    assert result.stdout_bytes == out.read_bytes()
    assert b"PRIVATE" not in out.read_bytes()


def test_export_says_when_it_cannot_write(box: Box, tmp_path: Path) -> None:
    result = box.run("export", "--out", str(tmp_path / "no" / "folder"))
    assert result.exit_code == 1
    assert "cannot write" in result.output


def test_install_and_uninstall_are_each_other_s_inverse(box: Box) -> None:
    before = box.files()
    said = box.ok("install", "--root", str(box.root))
    name = stores.file_name(authority(box).certificate)
    assert f"debian: write {box.root}/usr/local/share/ca-certificates/{name}.crt" in said
    assert "dockerd" in said, "who must be restarted"
    assert {f"usr/local/share/ca-certificates/{name}.crt", "etc/ssl/certs/ca-certificates.crt"} < box.files()
    assert f"etc/docker/certs.d/quay.io/{name}.crt" in box.files()
    again = box.ok("install", "--root", str(box.root))
    assert "debian: nothing to do" in again
    assert "docker: nothing to do" in again
    box.ok("uninstall", "--root", str(box.root))
    assert box.files() == before


def test_a_dry_run_says_the_same_and_does_nothing(box: Box) -> None:
    before = box.files()
    planned = box.ok("install", "--root", str(box.root), "--dry-run")
    assert box.files() == before
    assert box.ok("install", "--root", str(box.root)) == planned


def test_stores_and_registries_can_be_chosen(box: Box) -> None:
    box.ok("install", "--root", str(box.root), "--store", "podman", "--registry", "quay.io", "--registry", "ghcr.io")
    folders = {path.rsplit("/", 1)[0] for path in box.files() if path.endswith(".crt")}
    assert folders == {"etc/containers/certs.d/quay.io", "etc/containers/certs.d/ghcr.io"}


def test_registries_of_the_configuration_are_among_the_default_ones(box: Box) -> None:
    box.config.write_text(box.config.read_text() + '[registries."registry.example:5000"]\n[registries."box"]\n')
    box.ok("install", "--root", str(box.root), "--store", "docker")
    hosts = {path.name for path in (box.root / "etc/docker/certs.d").iterdir()}
    assert {"registry.example:5000", "quay.io", "ghcr.io"} < hosts
    assert "box" not in hosts


def test_install_in_json(box: Box) -> None:
    arguments = ("install", "--root", str(box.root), "--store", "debian")
    first, second = box.read(*arguments, "--dry-run"), box.read(*arguments)
    assert (first["dry_run"], second["dry_run"]) == (True, False)
    assert first["stores"] == second["stores"]
    (store,) = second["stores"]
    assert (store["store"], store["changed"]) == ("debian", True)
    assert [step["action"] for step in store["steps"]].count("write") == 2
    assert [store["changed"] for store in box.read(*arguments)["stores"]] == [False]


def test_a_client_needs_no_ca_of_its_own(empty: Box, tmp_path: Path) -> None:
    pem = Authority.create(tmp_path / "elsewhere", ["quay.io"], now=datetime.now(UTC)).pem
    file = tmp_path / "ca.pem"
    file.write_bytes(pem)
    bundle = empty.root / "etc/ssl/certs/ca-certificates.crt"
    empty.ok("install", "--root", str(empty.root), "--ca", str(file))
    assert bundle.read_bytes() == pem
    empty.ok("uninstall", "--root", str(empty.root), "--ca", "-", stdin=pem)
    assert not bundle.exists()


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_file_that_is_no_ca_is_refused(box: Box, tmp_path: Path, command: str) -> None:
    result = box.run(command, "--root", str(box.root), "--ca", "-", stdin=b"<html>")
    assert result.exit_code == 1
    assert result.output == "Error: the CA: no certificate in it; give what `entrepot ca export` writes\n"


def test_a_registry_that_is_none_is_refused_before_anything_is_written(box: Box) -> None:
    before = box.files()
    result = box.run("install", "--root", str(box.root), "--registry", "../../etc")
    assert result.exit_code == 1
    assert "'../../etc' is no registry" in result.output
    assert box.files() == before


def test_a_tree_of_nothing_we_know_asks_for_a_store(box: Box, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    result = box.run("install", "--root", str(tmp_path / "bare"))
    assert result.exit_code == 1
    assert "name one with --store: debian, rhel" in result.output


def test_on_the_host_itself_commands_are_run(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is a tree here taken for the host's root."""
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(stores, "HOST_ROOT", box.root)
    monkeypatch.setattr("entrepot.cli.ca.run_command", commands.append)
    box.ok("install", "--root", str(box.root), "--store", "debian", "--dry-run")
    assert commands == []
    box.ok("install", "--root", str(box.root), "--store", "debian")
    assert commands == [("update-ca-certificates",)]


def test_rule_12_a_rotation_from_end_to_end(box: Box) -> None:
    old = authority(box)
    root = str(box.root)
    box.ok("install", "--root", root)
    said = box.ok("rotate")
    begun = rotation.published(box.directory)
    assert begun.next is not None
    assert "rotate --finish" in said
    assert authority(box).certificate == old.certificate, "leaves are still signed by the old one"
    assert x509.load_pem_x509_certificates(box.ok("show", "--pem").encode()) == [old.certificate, begun.next]
    assert x509.load_pem_x509_certificates(box.ok("export").encode()) == [old.certificate, begun.next]
    assert box.read("show")["next"]["fingerprint"] in box.ok("show")
    assert "DER holds one certificate" in box.run("export", "--format", "der").output
    assert box.run("rotate").exit_code == 1

    box.ok("install", "--root", root)
    bundle = box.root / "etc/ssl/certs/ca-certificates.crt"
    assert x509.load_pem_x509_certificates(bundle.read_bytes()) == [old.certificate, begun.next]

    assert "SIGHUP" in box.ok("rotate", "--finish")
    assert authority(box).certificate == begun.next
    box.ok("uninstall", "--root", root, "--ca", str(box.directory / "previous" / "ca.crt"))
    assert x509.load_pem_x509_certificates(bundle.read_bytes()) == [begun.next]
    assert "docker: nothing to do" in box.ok("install", "--root", root)


def test_uninstall_takes_the_old_ca_along(box: Box) -> None:
    before = box.files()
    box.ok("install", "--root", str(box.root))
    box.ok("rotate")
    box.ok("install", "--root", str(box.root))
    box.ok("rotate", "--finish")
    box.ok("rotate")
    box.ok("install", "--root", str(box.root))
    box.ok("uninstall", "--root", str(box.root))
    assert box.files() == before


def test_a_rotation_can_be_cancelled(box: Box) -> None:
    before = box.ok("export")
    box.ok("rotate")
    assert "goes on" in box.ok("rotate", "--cancel")
    assert box.ok("export") == before
    assert box.run("rotate", "--cancel").exit_code == 1


def test_help_is_everywhere(box: Box) -> None:
    for command in ((), ("show",), ("export",), ("install",), ("uninstall",), ("rotate",)):
        assert "Usage: entrepot ca" in box.ok(*command, "--help")
