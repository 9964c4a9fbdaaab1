from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from entrepot.certs import trust
from entrepot.certs.authority import Authority
from entrepot.certs.errors import TrustError
from entrepot.certs.steps import apply

type Plan = Callable[[str, bytes, Sequence[str], Path], object]


def refuse(command: Sequence[str]) -> None:
    pytest.fail(f"{command} would change this host")


def test_the_kinds() -> None:
    assert trust.kinds() == ("debian", "rhel", "alpine", "suse", "arch", "docker", "containerd", "podman")
    assert [kind for kind in trust.kinds() if trust.needs_hosts(kind)] == ["docker", "containerd", "podman"]


@pytest.mark.parametrize("kind", trust.kinds())
def test_each_kind_can_be_installed_and_uninstalled(kind: str, authority: Authority, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    apply(trust.plan_install(kind, authority.pem, ["quay.io"], root), refuse)
    installed = [path for path in root.rglob("*.crt") if authority.pem in path.read_bytes()]
    assert installed
    apply(trust.plan_uninstall(kind, authority.pem, [], root), refuse)
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("plan", [trust.plan_install, trust.plan_uninstall])
def test_an_unknown_kind_names_the_known_ones(
    plan: Callable[[str, bytes, Sequence[str], Path], object], authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(TrustError, match="'windows' is no kind of trust store; use one of debian, rhel"):
        plan("windows", authority.pem, [], tmp_path)


def test_a_plan_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for kind in trust.kinds():
        assert trust.plan_install(kind, authority.pem, ["quay.io"], root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("ID=debian", "debian"),
        ('ID=ubuntu\nID_LIKE="debian"', "debian"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "debian"),
        ('ID="rhel"\nID_LIKE="fedora"', "rhel"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "rhel"),
        ("# a comment\n\nNAME=Fedora\nID=fedora", "rhel"),
        ('ID="amzn"\nID_LIKE="centos rhel fedora"', "rhel"),
        ("ID=alpine", "alpine"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"', "suse"),
        ('ID="sles"\nID_LIKE="suse"', "suse"),
        ("ID=manjaro\nID_LIKE=arch", "arch"),
    ],
)
def test_the_system_is_known_by_its_os_release(tmp_path: Path, release: str, kind: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(release)
    assert trust.detect(tmp_path) == [kind]


def test_os_release_may_be_a_link_within_the_tree(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID=alpine")
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    assert trust.detect(tmp_path) == ["alpine"]
    (tmp_path / "etc/os-release").unlink()
    assert trust.detect(tmp_path) == ["alpine"]


def test_runtimes_are_known_by_their_folders(tmp_path: Path) -> None:
    assert trust.detect(tmp_path) == []
    for folder in ("docker", "containers"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text("ID=slackware\nVERSION")
    assert trust.detect(tmp_path) == ["docker", "podman"]
