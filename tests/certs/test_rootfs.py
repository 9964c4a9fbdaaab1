from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.certs.errors import TrustError
from entrepot.certs.rootfs import content, inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "etc").mkdir(parents=True)
    return path


def test_a_path_without_links_is_below_the_root(root: Path) -> None:
    assert inside(root, "/etc/new/file") == root / "etc/new/file"


def test_an_absolute_link_stays_inside(root: Path) -> None:
    (root / "etc/ssl").symlink_to("/usr/lib/ssl")
    assert inside(root, "/etc/ssl/cert.pem") == root / "usr/lib/ssl/cert.pem"


def test_a_relative_link_is_relative_to_where_it_is(root: Path) -> None:
    (root / "etc/ssl").symlink_to("pki/tls")
    (root / "etc/pki").symlink_to("../var/pki")
    assert inside(root, "/etc/ssl/x") == root / "var/pki/tls/x"


@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "/../../etc/passwd"])
def test_a_link_upwards_ends_at_the_root(root: Path, target: str) -> None:
    (root / "etc/out").symlink_to(target)
    assert inside(root, "/etc/out", follow=True) == root / "etc/passwd"
    assert inside(root, "/../../etc/x") == root / "etc/x"


def test_the_last_link_is_followed_only_when_asked(root: Path) -> None:
    (root / "etc/cert.pem").symlink_to("/ssl/bundle.pem")
    assert inside(root, "/etc/cert.pem") == root / "etc/cert.pem"
    assert inside(root, "/etc/cert.pem", follow=True) == root / "ssl/bundle.pem"


def test_circles_are_said(root: Path) -> None:
    (root / "etc/a").symlink_to("b")
    (root / "etc/b").symlink_to("a")
    with pytest.raises(TrustError, match="'/etc/a/x' go round in circles"):
        inside(root, "/etc/a/x")


def test_a_file_in_the_way_is_left_to_who_writes(root: Path) -> None:
    (root / "etc/file").write_text("")
    assert inside(root, "/etc/file/below") == root / "etc/file/below"


@given(st.lists(st.sampled_from(["..", ".", "a", "link", "up", "abs"]), min_size=1, max_size=8))
def test_whatever_the_path_it_is_inside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "a").mkdir()
    (root / "link").symlink_to("a")
    (root / "up").symlink_to("../..")
    (root / "a/abs").symlink_to("/link/..")
    assert inside(root, "/" + "/".join(parts), follow=True).resolve().is_relative_to(root.resolve())


def test_content_is_empty_when_there_is_none(root: Path) -> None:
    (root / "etc/file").write_bytes(b"x")
    assert content(root / "etc/file") == b"x"
    assert content(root / "etc/missing") == b""
    assert content(root / "etc/file/below") == b""
    with pytest.raises(TrustError, match="directory"):
        content(root / "etc")
