import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from tests.certs.forge import NOW

from entrepot.certs import certs_d, profiles
from entrepot.certs.certs_d import RUNTIMES, Runtime
from entrepot.certs.errors import TrustError
from entrepot.certs.steps import Note, Step, apply, changes
from entrepot.certs.stores import file_name


def ca(name: str) -> x509.Certificate:
    key = profiles.new_key()
    limits = profiles.constraints([name])
    return profiles.root(key.public_key(), limits, NOW, NOW + timedelta(days=9)).sign(key, SHA256())


OURS, NEXT = ca("quay.io"), ca("ghcr.io")
HOSTS = ("quay.io", "registry.example:5000")
BY_KIND = {runtime.kind: runtime for runtime in RUNTIMES}
DOCKER, CONTAINERD = BY_KIND["docker"], BY_KIND["containerd"]
EACH = pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.kind)


def refuse(command: Sequence[str]) -> None:
    pytest.fail(f"{command} would change this host")


def install(runtime: Runtime, root: Path, *certificates: x509.Certificate, hosts: Sequence[str] = HOSTS) -> list[Step]:
    steps = certs_d.plan_install(runtime, certificates, hosts, root)
    apply(steps, refuse)
    return steps


def uninstall(runtime: Runtime, root: Path, *certificates: x509.Certificate, hosts: Sequence[str] = ()) -> list[Step]:
    steps = certs_d.plan_uninstall(runtime, certificates, hosts, root)
    apply(steps, refuse)
    return steps


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def notes(steps: Sequence[Step]) -> str:
    return " ".join(step.text for step in steps if isinstance(step, Note))


@EACH
def test_each_registry_has_the_ca_in_its_folder(runtime: Runtime, tmp_path: Path) -> None:
    install(runtime, tmp_path, OURS, NEXT)
    for host in HOSTS:
        for certificate in (OURS, NEXT):
            path = tmp_path / runtime.folder.lstrip("/") / host / f"{file_name(certificate)}.crt"
            assert path.read_bytes() == profiles.pem(certificate)


@EACH
def test_what_is_done_is_not_done_again(runtime: Runtime, tmp_path: Path) -> None:
    install(runtime, tmp_path, OURS)
    before = files(tmp_path)
    assert not changes(install(runtime, tmp_path, OURS))
    assert files(tmp_path) == before


@EACH
def test_uninstall_takes_out_exactly_what_was_put_in(runtime: Runtime, tmp_path: Path) -> None:
    theirs = tmp_path / runtime.folder.lstrip("/") / "quay.io" / "ca.crt"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    install(runtime, tmp_path, OURS)
    uninstall(runtime, tmp_path, OURS)
    assert list(files(tmp_path).values()) == [b"theirs"]
    assert [path.name for path in theirs.parent.parent.iterdir()] == ["quay.io"]
    assert not changes(uninstall(runtime, tmp_path, OURS))


@EACH
def test_uninstall_can_be_for_some_registries(runtime: Runtime, tmp_path: Path) -> None:
    install(runtime, tmp_path, OURS)
    uninstall(runtime, tmp_path, OURS, hosts=["quay.io"])
    assert {path.split("/")[-2] for path in files(tmp_path)} == {"registry.example:5000"}


def test_docker_has_no_folder_for_docker_hub(tmp_path: Path) -> None:
    steps = install(DOCKER, tmp_path, OURS, hosts=["docker.io"])
    assert files(tmp_path) == {}
    assert "for Docker Hub the system's store needs the CA" in notes(steps)


def test_containerd_gets_its_hosts_toml(tmp_path: Path) -> None:
    install(CONTAINERD, tmp_path, OURS, hosts=["docker.io", "quay.io", "registry.example:5000"])
    folder = tmp_path / "etc/containerd/certs.d"
    read = {path.name: tomllib.loads((path / "hosts.toml").read_text()) for path in folder.iterdir()}
    assert {host: table["server"] for host, table in read.items()} == {
        "docker.io": "https://registry-1.docker.io",
        "quay.io": "https://quay.io",
        "registry.example:5000": "https://registry.example:5000",
    }
    assert read["quay.io"]["ca"] == [f"/etc/containerd/certs.d/quay.io/{file_name(OURS)}.crt"]


def test_our_hosts_toml_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "etc/containerd/certs.d/quay.io/hosts.toml"
    install(CONTAINERD, tmp_path, OURS, hosts=["quay.io"])
    install(CONTAINERD, tmp_path, OURS, NEXT, hosts=["quay.io"])
    assert len(tomllib.loads(path.read_text())["ca"]) == 2
    uninstall(CONTAINERD, tmp_path, OURS)
    assert tomllib.loads(path.read_text())["ca"] == [f"/etc/containerd/certs.d/quay.io/{file_name(NEXT)}.crt"]
    uninstall(CONTAINERD, tmp_path, NEXT)
    assert not path.parent.exists()


def test_somebody_else_s_hosts_toml_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "etc/containerd/certs.d/quay.io/hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text('server = "https://quay.io"\n[host."https://mirror.example"]\n')
    before = path.read_bytes()
    steps = install(CONTAINERD, tmp_path, OURS, hosts=["quay.io"])
    assert path.read_bytes() == before
    added = f'ca = ["/etc/containerd/certs.d/quay.io/{file_name(OURS)}.crt"]'
    assert f"add `{added}` above its first [host] table" in notes(steps)
    # The advice is good TOML, and once it is followed there is nothing more to say.
    path.write_text(f"{added}\n{path.read_text()}")
    assert tomllib.loads(path.read_text())["ca"]
    assert "not ours" not in notes(install(CONTAINERD, tmp_path, OURS, hosts=["quay.io"]))
    assert "take the entrepot-*.crt that are gone out of its `ca`" in notes(uninstall(CONTAINERD, tmp_path, OURS))
    assert path.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", True),
        ("not = [toml", True),
        ("plugins = 3", True),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""', True),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d/"', False),
        ('[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/x:/etc/containerd/certs.d"', False),
        ('[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/etc/containerd/certs.d.old"', True),
        ('[plugins]\nother = 1\n[plugins.x]\nregistry = "y"', True),
    ],
)
def test_it_says_when_cri_does_not_look_there(tmp_path: Path, config: str, said: bool) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / "etc/containerd/config.toml").write_text(config)
    assert ("config_path = '/etc/containerd/certs.d'" in notes(install(CONTAINERD, tmp_path, OURS))) is said


@pytest.mark.parametrize("host", ["Quay.IO", "quay.io.", "registry.example:5000"])
def test_registries_are_brought_to_one_form(host: str) -> None:
    assert certs_d.checked_host(host) in {"quay.io", "registry.example:5000"}


@pytest.mark.parametrize(
    "host",
    ["", "..", "../../etc", "a/b", "quay.io/..", "quay.io:", "quay.io:x", "quay.io:0", "quay.io:65536", "[::1]:5"],
)
def test_rule_12_what_is_no_registry_is_no_path(tmp_path: Path, host: str) -> None:
    with pytest.raises(TrustError, match="is no registry"):
        certs_d.plan_install(DOCKER, [OURS], [host], tmp_path)


@given(st.text(max_size=60))
def test_any_text_is_a_registry_or_refused_with_our_error(text: str) -> None:
    try:
        host = certs_d.checked_host(text)
    except TrustError:
        return
    assert "/" not in host
    assert certs_d.checked_host(host) == host


def test_folders_that_are_links_stay_inside(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/docker/certs.d").symlink_to(outside)
    install(DOCKER, root, OURS)
    assert files(outside) == {}
    uninstall(DOCKER, root, OURS)
    assert files(root) == {}
