"""Names under the store, and locks on parts."""

import errno
import os
from pathlib import Path

import pytest

from entrepot.cache.interface import NoRoom, StoreError
from entrepot.cache.layout import BLOCK, Layout, entries, lock_part, on_disk, refused
from entrepot.registry.digests import Digest

DIGEST = Digest.of(b"a")


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (BLOCK, 1), (BLOCK + 1, 2), (1 << 40, 1 << 28)])
def test_files_take_whole_blocks(size: int, blocks: int) -> None:
    assert on_disk(size) == blocks * BLOCK


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EIO, StoreError), (errno.EFBIG, StoreError)],
)
def test_a_full_disk_is_told_apart(code: int, kind: type[StoreError]) -> None:
    error = refused("write", Path("x"), OSError(code, os.strerror(code)))
    assert type(error) is kind
    assert str(error) == f"cannot write x: {os.strerror(code)}"


def test_it_is_empty_until_something_is_begun(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    assert layout.is_empty()
    layout.part(DIGEST).touch()
    assert not layout.is_empty()


def test_parts_are_what_is_named_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    for name in ("README", "sha256-abc.part", "md5-abc.part", "sha256-abc.size"):
        (layout.incoming / name).touch()
    layout.part(DIGEST).write_bytes(b"abc")
    assert [(part.digest, part.size) for part in layout.parts()] == [(DIGEST, 3)]


def test_a_part_is_locked_by_one(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    path = layout.part(DIGEST)
    assert lock_part(path) is None
    path.touch()
    fd = lock_part(path)
    assert fd is not None
    assert lock_part(path) is None
    os.close(fd)
    again = lock_part(path)
    assert again is not None
    os.close(again)


def test_what_is_no_directory_has_no_entries(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert entries(tmp_path / "file") == entries(tmp_path / "absent") == []
