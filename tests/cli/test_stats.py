import json
from pathlib import Path

import pytest

from entrepot.cli.main import run
from entrepot.cli.stats import Served, ago, blobs, human, served


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """With two blobs, and what two workers and the DNS process have counted."""
    for name, content in (("sha256/ab/abc", b"12345"), ("sha512/cd/cde", b"123")):
        file = tmp_path / "store/blobs" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    run_folder = tmp_path / "store/run"
    run_folder.mkdir()
    for name, numbers in {
        "proxy-0": {"started": 1000.5, "pid": 7, "requests": 3, "bytes_hit": 2048},
        "proxy-1": {"started": 900.0, "pid": 8, "requests": 4, "requests_miss": 1},
        "dns-0": {"started": 950, "queries": 9},
    }.items():
        (run_folder / f"{name}.json").write_text(json.dumps(numbers))
    (run_folder / "proxy-2.json").write_text("{torn")
    (run_folder / "proxy-3.json").write_text("[1]")
    (run_folder / "proxy-0.new").write_text('{"requests": 99}')
    return tmp_path / "store"


def test_what_is_held(store: Path, tmp_path: Path) -> None:
    assert blobs(store) == (2, 8)
    assert blobs(tmp_path / "nothing") == (0, 0)


def test_a_file_among_the_folders_is_no_blob(store: Path) -> None:
    (store / "blobs/README").write_text("x")
    assert blobs(store) == (2, 8)


def test_counters_are_added_up_by_role(store: Path) -> None:
    assert served(store / "run") == {
        "proxy": Served(2, 900.0, {"requests": 7, "bytes_hit": 2048, "requests_miss": 1}),
        "dns": Served(1, 950.0, {"queries": 9}),
    }


def test_for_people(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(store))
    assert run(["stats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "held    2 blobs, 8 B"
    assert any(line.startswith("proxy   2 processes, for ") for line in lines)
    assert f"  {'bytes_hit':<24} {'2.0 KiB':>12}" in lines
    assert f"  {'requests':<24} {'7':>12}" in lines


def test_for_programs(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(store))
    assert run(["stats", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["blobs"] == {"count": 2, "bytes": 8}
    assert shown["processes"]["proxy"]["counters"]["requests"] == 7
    assert shown["processes"]["dns"] == {"count": 1, "started": 950.0, "counters": {"queries": 9}}


def test_a_store_that_nobody_has_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path))
    assert run(["stats"]) == 0
    assert "no process has run with this store yet" in capsys.readouterr().out
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path / "none"))
    assert run(["stats"]) == 1
    assert capsys.readouterr().err.startswith(f"entrepot: there is no store in {tmp_path}/none yet")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1024**5, "1.0 PiB"), (1024**6, "1024.0 PiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m 0s"), (3725, "1h 2m"), (90000, "1d 1h"), (86400 * 400, "400d 0h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert ago(seconds) == text
