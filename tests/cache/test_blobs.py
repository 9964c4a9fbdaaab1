"""What only files can get wrong: crashes, full disks, names."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from entrepot.cache.blobs import FileBlobs, FileReader
from entrepot.cache.interface import StoreError
from entrepot.registry.digests import Digest

CONTENT = os.urandom(300_000)
DIGEST = Digest.of(CONTENT)

WRITER = """
import sys
from pathlib import Path
from entrepot.cache.blobs import FileBlobs, FileReader
from entrepot.registry.digests import Digest
part = FileBlobs(Path(sys.argv[1])).claim(Digest.parse(sys.argv[2]))
part.write(sys.stdin.buffer.read(int(sys.argv[3])))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_loses_no_byte_and_its_right_at_once(tmp_path: Path) -> None:
    """DESIGN rule 2: a crash of the process that fetches loses no byte already on disk."""
    blobs = FileBlobs(tmp_path)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), str(DIGEST), "200000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(CONTENT[:200_000])
        writer.stdin.flush()
        assert writer.stdout.readline() == b"written\n"
        assert blobs.claim(DIGEST) is None
        followed = blobs.follow(DIGEST)
        assert followed is not None
        assert followed[0] == 200_000
        followed[2].close()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    part = blobs.claim(DIGEST)
    assert part is not None
    assert part.load() == 200_000
    part.write(CONTENT[200_000:])
    part.commit()
    assert blobs.blob_path(DIGEST).read_bytes() == CONTENT


def test_a_refusing_disk_leaves_disk_and_hash_alike(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    part = blobs.claim(DIGEST)
    assert part is not None
    part.write(CONTENT[:1000])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # the kernel's own way to refuse a write half-way
    try:
        with pytest.raises(StoreError, match="cannot write"):
            part.write(CONTENT[1000:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert part.offset == 1000
    assert blobs.part_path(DIGEST).stat().st_size == 1000
    part.write(CONTENT[1000:])
    part.commit()
    assert blobs.blob_path(DIGEST).read_bytes() == CONTENT


def test_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    part = blobs.claim(DIGEST)
    assert part is not None
    blobs.announce(DIGEST, len(CONTENT))
    part.write(CONTENT)
    part.commit()
    assert list((tmp_path / "incoming").iterdir()) == []
    (info,) = blobs.iterate()
    assert info.size == len(CONTENT)


def test_foreign_files_are_not_blobs(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    for name in ("lost+found", "sha256/ab/README", "sha256/README", "md5/ab/abcdef"):
        path = tmp_path / "blobs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no blob")
    assert list(blobs.iterate()) == []


def test_an_unusable_root_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use .*file as store"):
        FileBlobs(tmp_path / "file")


def test_files_are_for_us_alone(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    part = blobs.claim(DIGEST)
    assert part is not None
    part.write(CONTENT)
    part.commit()
    assert blobs.blob_path(DIGEST).stat().st_mode & 0o077 == 0
    assert (tmp_path / "store" / "blobs").stat().st_mode & 0o077 == 0


def test_a_disk_that_cannot_be_read_is_our_error(tmp_path: Path) -> None:
    reader, buffer = FileReader(os.open(tmp_path, os.O_RDONLY)), memoryview(bytearray(10))  # a folder: EISDIR
    with pytest.raises(StoreError, match="cannot read what is held"):
        reader.read(0, buffer)
    reader.close()
