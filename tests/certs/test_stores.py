import shutil
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from tests.certs.forge import NOW

from entrepot.certs import bundles, profiles, stores
from entrepot.certs.steps import Note, Run, Step, Write, apply
from entrepot.certs.stores import STORES, SystemStore


def ca(name: str) -> x509.Certificate:
    key = profiles.new_key()
    limits = profiles.constraints([name])
    return profiles.root(key.public_key(), limits, NOW, NOW + timedelta(days=9)).sign(key, SHA256())


OURS, NEXT, PUBLIC = ca("quay.io"), ca("ghcr.io"), ca("public.example")
BY_KIND = {store.kind: store for store in STORES}
DEBIAN = BY_KIND["debian"]
SEVERAL = pytest.mark.parametrize("store", STORES, ids=lambda store: store.kind)


def refuse(command: Sequence[str]) -> None:
    pytest.fail(f"{command} would change this host")


def tree(root: Path) -> dict[str, object]:
    """All that is in a tree, to compare."""
    return {
        str(path.relative_to(root)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in root.rglob("*")
    }


def files(root: Path) -> dict[str, object]:
    """As `tree`, but for folders: those of the store may stay."""
    return {name: content for name, content in tree(root).items() if content is not True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the bundle and the hash folders of every kind of system."""
    for store in STORES:
        bundle = tmp_path / store.bundle.lstrip("/")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_bytes(profiles.pem(PUBLIC))
        for folder in store.hashes:
            (tmp_path / folder.path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return tmp_path


def install(store: SystemStore, root: Path, *certificates: x509.Certificate) -> list[Step]:
    steps = stores.plan_install(store, certificates, root)
    apply(steps, refuse)
    return steps


def uninstall(store: SystemStore, root: Path, *certificates: x509.Certificate) -> list[Step]:
    steps = stores.plan_uninstall(store, certificates, root)
    apply(steps, refuse)
    return steps


@SEVERAL
def test_the_bundle_and_the_anchors_hold_the_ca(store: SystemStore, root: Path) -> None:
    install(store, root, OURS, NEXT)
    bundle = (root / store.bundle.lstrip("/")).read_bytes()
    assert bundle == b"".join(map(profiles.pem, (PUBLIC, OURS, NEXT)))
    anchors = root / store.anchors.lstrip("/")
    assert {path.name for path in anchors.iterdir()} == {f"{stores.file_name(one)}.crt" for one in (OURS, NEXT)}
    assert (anchors / f"{stores.file_name(OURS)}.crt").read_bytes() == profiles.pem(OURS)


@SEVERAL
def test_openssl_finds_it_by_its_hash(store: SystemStore, root: Path) -> None:
    install(store, root, OURS)
    for folder in store.hashes:
        link = root / folder.path.lstrip("/") / f"{stores.subject_hash(OURS)}.0"
        assert link.is_symlink()
        first = link.readlink()
        # Followed by hand: the links are absolute as seen inside the tree.
        target = root / str((link.parent / first).readlink() if not first.is_absolute() else first).lstrip("/")
        assert target.read_bytes() == profiles.pem(OURS)


@SEVERAL
def test_what_is_done_is_not_done_again(store: SystemStore, root: Path) -> None:
    install(store, root, OURS)
    before = tree(root)
    assert install(store, root, OURS) == []
    assert tree(root) == before


@SEVERAL
def test_uninstall_takes_out_exactly_what_was_put_in(store: SystemStore, root: Path) -> None:
    before = files(root)
    install(store, root, OURS, NEXT)
    uninstall(store, root, OURS)
    assert bundles.holds((root / store.bundle.lstrip("/")).read_bytes(), NEXT)
    uninstall(store, root, NEXT)
    assert files(root) == before
    assert uninstall(store, root, OURS, NEXT) == []


@SEVERAL
def test_half_an_installation_is_completed(store: SystemStore, root: Path) -> None:
    steps = [step for step in stores.plan_install(store, [OURS], root) if isinstance(step, Write)]
    apply(steps[:1], refuse)
    install(store, root, OURS)
    assert bundles.holds((root / store.bundle.lstrip("/")).read_bytes(), OURS)


def test_a_ca_in_the_bundle_that_has_lost_its_file_is_taken_out(root: Path) -> None:
    before = files(root)
    install(DEBIAN, root, OURS)
    (root / DEBIAN.anchors.lstrip("/") / f"{stores.file_name(OURS)}.crt").unlink()
    uninstall(DEBIAN, root, OURS)
    assert files(root) == before


def test_a_file_of_that_name_with_another_ca_is_not_removed(root: Path) -> None:
    path = root / DEBIAN.anchors.lstrip("/") / f"{stores.file_name(OURS)}.crt"
    path.parent.mkdir(parents=True)
    path.write_bytes(profiles.pem(PUBLIC))
    assert uninstall(DEBIAN, root, OURS) == []
    assert path.exists()


def test_a_tree_without_a_bundle_gets_one_and_loses_it_again(tmp_path: Path) -> None:
    steps = install(DEBIAN, tmp_path, OURS)
    assert (tmp_path / "etc/ssl/certs/ca-certificates.crt").read_bytes() == profiles.pem(OURS)
    assert any("install ca-certificates" in step.text for step in steps if isinstance(step, Note))
    uninstall(DEBIAN, tmp_path, OURS)
    assert files(tmp_path) == {}


def test_a_hash_that_another_subject_has_is_numbered_on(root: Path) -> None:
    taken = root / f"etc/ssl/certs/{stores.subject_hash(OURS)}.0"
    taken.symlink_to("theirs.pem")
    install(DEBIAN, root, OURS)
    assert str(taken.readlink()) == "theirs.pem"
    assert str(taken.with_suffix(".1").readlink()) == f"{stores.file_name(OURS)}.pem"
    assert install(DEBIAN, root, OURS) == []
    uninstall(DEBIAN, root, OURS)
    assert taken.is_symlink()
    assert not taken.with_suffix(".1").is_symlink()


def test_hash_folders_that_a_system_does_not_have_are_not_made(tmp_path: Path) -> None:
    install(BY_KIND["rhel"], tmp_path, OURS)
    assert not (tmp_path / "etc/pki/ca-trust/extracted/pem/directory-hash").exists()


def test_nothing_outside_the_tree_is_touched(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "bundle.crt").write_bytes(profiles.pem(PUBLIC))
    (root / "etc/ssl/certs").mkdir(parents=True)
    (root / "etc/ssl/certs/ca-certificates.crt").symlink_to(outside / "bundle.crt")
    (root / "usr/local/share").mkdir(parents=True)
    (root / "usr/local/share/ca-certificates").symlink_to(outside)
    before = tree(outside)
    install(DEBIAN, root, OURS)
    assert tree(outside) == before
    inner = root / str(outside).lstrip("/")
    assert bundles.holds((inner / "bundle.crt").read_bytes(), OURS)
    assert (inner / f"{stores.file_name(OURS)}.crt").exists()


def test_notes_say_who_must_be_restarted(root: Path) -> None:
    notes = " ".join(step.text for step in install(DEBIAN, root, OURS) if isinstance(step, Note))
    for word in ("dockerd", "containerd", "buildkitd", "podman", "NODE_EXTRA_CA_CERTS", "Java"):
        assert word in notes


@SEVERAL
def test_on_the_host_itself_its_own_command_has_the_last_word(
    store: SystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans only: with what is a tree here taken for the host's root."""
    monkeypatch.setattr(stores, "HOST_ROOT", root)
    steps = [step for step in stores.plan_install(store, [OURS], root) if not isinstance(step, Note)]
    anchor = root / store.anchors.lstrip("/") / f"{stores.file_name(OURS)}.crt"
    command = Run(store.command, store.package)
    assert steps == [Write(anchor, profiles.pem(OURS)), command]
    # The command adds it to the bundle; then there is nothing left to do.
    apply(steps[:1], refuse)
    assert [step for step in stores.plan_install(store, [OURS], root) if isinstance(step, Run)] == [command]
    bundle = root / store.bundle.lstrip("/")
    bundle.write_bytes(bundles.with_added(bundle.read_bytes(), [OURS]))
    assert stores.plan_install(store, [OURS], root) == []
    removal = stores.plan_uninstall(store, [OURS], root)
    assert [step for step in removal if isinstance(step, Run)] == [command]
    assert not any(isinstance(step, Write) for step in removal)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_hash_is_openssl_s(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(profiles.pem(OURS))
    command = ["openssl", "x509", "-in", str(path), "-noout", "-subject_hash"]
    assert subprocess.check_output(command, text=True).strip() == stores.subject_hash(OURS)


@pytest.mark.skipif(shutil.which("update-ca-certificates", path="/usr/sbin:/usr/bin") is None, reason="needs Debian's")
def test_the_tree_is_as_debian_s_own_command_makes_it(tmp_path: Path) -> None:
    """The command, told to keep to a tree, makes by itself what a plan makes."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for root in (ours, theirs):
        (root / "etc/ssl/certs").mkdir(parents=True)
        (root / "usr/local/share/ca-certificates").mkdir(parents=True)
        (root / "hooks").mkdir()
        (root / "empty.conf").write_text("")
    install(DEBIAN, ours, OURS)
    name = f"{stores.file_name(OURS)}.crt"
    (theirs / "usr/local/share/ca-certificates" / name).write_bytes(profiles.pem(OURS))
    said = update_ca_certificates(theirs)
    assert "1 added" in said
    mine, debians = (tree(root / "etc/ssl/certs") for root in (ours, theirs))
    assert mine.keys() == debians.keys()
    assert mine["ca-certificates.crt"] == debians["ca-certificates.crt"]
    assert mine[f"{stores.subject_hash(OURS)}.0"] == debians[f"{stores.subject_hash(OURS)}.0"]


def update_ca_certificates(root: Path) -> str:
    options = {
        "--certsconf": "empty.conf",
        "--certsdir": "usr/share/ca-certificates",
        "--localcertsdir": "usr/local/share/ca-certificates",
        "--etccertsdir": "etc/ssl/certs",
        "--hooksdir": "hooks",
    }
    pairs = [text for option, path in options.items() for text in (option, str(root / path))]
    command = ["/usr/sbin/update-ca-certificates", *pairs]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
