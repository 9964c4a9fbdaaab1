import asyncio
import json
import time
from pathlib import Path

import pytest

from entrepot.amounts import ago, human
from entrepot.cache.embedded import open_records
from entrepot.cli.main import run
from entrepot.cli.stats import Served, blobs, quota_line, quotas, served


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


@pytest.fixture
def told(store: Path) -> Path:
    """Two workers that have heard of the same quota, one of them later."""
    for name, numbers in {
        "proxy-0": {
            "requests": 3,
            "quota_docker.io_limit": 100,
            "quota_docker.io_remaining": 80,
            "quota_docker.io_seen": 1000,
            "quota_docker.io_paused": 2000,
        },
        "proxy-1": {
            "quota_docker.io_limit": 100,
            "quota_docker.io_remaining": 76,
            "quota_docker.io_reset": 1900,
            "quota_docker.io_seen": 1500,
            "quota_registry.example:5000_remaining": 1,
            "quota_other_seen": "x",
        },
    }.items():
        (store / f"run/{name}.json").write_text(json.dumps(numbers))
    return store


def test_quotas_are_not_added_up(told: Path) -> None:
    assert quotas(told / "run") == {
        "docker.io": {"limit": 100, "remaining": 76, "reset": 1900, "seen": 1500, "paused": 2000},
        "registry.example:5000": {"remaining": 1},
    }
    assert served(told / "run")["proxy"].counters == {"requests": 3}


def test_quotas_are_shown(told: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(told))
    assert run(["stats"]) == 0
    assert "quota   registry.example:5000: 1 left" in capsys.readouterr().out.splitlines()
    assert run(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quota"]["docker.io"]["remaining"] == 76


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (
            {"limit": 100, "remaining": 76, "reset": 1900, "seen": 1500, "paused": 1660},
            "76 left of 100, more in 5m 0s, throttled for 1m 0s, heard 1m 40s ago",
        ),
        ({"limit": 100, "remaining": 76, "reset": 1600, "paused": 1600}, "76 left of 100"),
        ({"paused": 1610}, "throttled for 10s"),
    ],
)
def test_a_quota_for_people(numbers: dict[str, int], text: str) -> None:
    assert quota_line("quay.io", numbers, 1600.0) == f"quota   quay.io: {text}"


def test_wrong_bytes_are_shown_with_their_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(store))
    store.mkdir()

    async def note() -> None:
        records = open_records(store)
        await records.put("suspicious/quay.io", {"digest": "sha256:abc", "at": time.time() - 70.5}, ttl=600)
        await records.close()

    asyncio.run(note())
    assert run(["stats"]) == 0
    shown = capsys.readouterr().out
    assert "suspect quay.io: sent wrong bytes for sha256:abc 1m 10s ago; nothing of it is kept" in shown
    assert run(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wrong_bytes"]["quay.io"]["digest"] == "sha256:abc"
