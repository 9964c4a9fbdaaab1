"""scrub and gc, on a real store."""

import json
import os
from pathlib import Path

import pytest

from entrepot.cache.embedded import open_blobs
from entrepot.cli.main import run
from entrepot.registry.digests import Digest

GOOD, BAD = b"good " * 10_000, b"bad " * 10_000


def hold(store: Path, content: bytes) -> Path:
    """Commits a blob; returns its file."""
    blobs = open_blobs(store)
    part = blobs.claim(Digest.of(content))
    assert part is not None
    part.reserve(len(content))
    part.write(content)
    part.commit()
    blobs.close()
    return blobs.layout.blob(Digest.of(content))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "entrepot.toml").write_text(f'[store]\npath = "{tmp_path}/store"\nmin_free = "0"\n')
    hold(tmp_path / "store", GOOD)
    return tmp_path


def command(store: Path, *words: str) -> int:
    return run([*words, "--config", str(store / "entrepot.toml")])


def test_a_clean_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(store, "scrub") == 0
    assert capsys.readouterr().out.endswith("looked at 1 blobs, 48.8 KiB: 0 wrong\n")


def test_a_flipped_byte_is_found_and_removed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = hold(store / "store", BAD)
    os.chmod(file, 0o600)
    file.write_bytes(b"B" + BAD[1:])
    assert command(store, "scrub", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["digest"] for one in found["wrong"]] == [str(Digest.of(BAD))]
    assert found["blobs"] == 2
    assert not file.exists()
    assert command(store, "scrub") == 0


def test_gc_shows_first_and_removes_then(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = hold(store / "store", BAD)
    for blob in (store / "store" / "blobs").rglob("*"):
        if blob.is_file():
            os.utime(blob, (1.0, 1.0) if blob == file else None)
    config = store / "entrepot.toml"
    config.write_text(f'[store]\npath = "{store}/store"\nmin_free = "0"\nsize = "60KiB"\n')
    assert command(store, "gc", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"]
    assert plan["used"] > plan["size"] == 60 * 1024
    assert file.exists()
    assert command(store, "gc") == 0
    assert "freed" in capsys.readouterr().out


def test_a_rate_that_is_none(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(store, "scrub", "--rate", "fast") == 2
    assert capsys.readouterr().err.startswith("entrepot: --rate 'fast': ")
    assert command(store, "scrub", "--rate", "1GB") == 0


@pytest.mark.parametrize("word", ["scrub", "gc"])
def test_no_store(tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "entrepot.toml").write_text(f'[store]\npath = "{tmp_path}/none"\n')
    assert command(tmp_path, word) == 1
    assert "no store here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
