"""What the processes of a box leave in their files, added up."""

import json
import os
from pathlib import Path

from tests.web.conftest import write_counts

from entrepot.counters import Counters
from entrepot.web.readings import Transfer, bounded, read, resident


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    run = read(tmp_path / "run")
    assert run.processes == ()
    assert run.started == 0.0
    assert run.total() == {}


def test_counts_are_added_up_and_states_are_not(tmp_path: Path) -> None:
    write_counts(tmp_path, "proxy-0", started=50.5, requests=3, quota_quay_x=1, states=["quota_quay_x"])
    write_counts(tmp_path, "proxy-1", started=40, requests=4, flag=True, text="x")
    write_counts(tmp_path, "dns-0", started="x", queries=9)
    for name, text in {"proxy-2.json": "{torn", "proxy-3.json": "[1]", "other.json": "{}", "proxy-0.new": "{}"}.items():
        (tmp_path / "run" / name).write_text(text)
    run = read(tmp_path / "run")
    assert [process.name for process in run.processes] == ["dns-0", "proxy-0", "proxy-1"]
    assert run.total("proxy") == {"requests": 7}
    assert run.total() == {"requests": 7, "queries": 9}
    assert run.started == 40


def test_sums_do_not_go_back_when_a_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "run/proxy-0.json"
    path.parent.mkdir()
    seen = [0]
    for _ in range(3):  # one after the other in the same place
        counters = Counters(path, started=1.0)
        for _ in range(4):
            counters.add("requests")
            counters.flush()
            seen.append(read(path.parent).total("proxy")["requests"])
    assert seen == sorted(seen)
    assert seen[-1] == 12


def test_who_heard_last_of_a_quota_is_right(tmp_path: Path) -> None:
    write_counts(
        tmp_path, "proxy-0", quota_docker_io_x=1, **{"quota_docker.io_remaining": 9, "quota_docker.io_seen": 5}
    )
    write_counts(
        tmp_path,
        "proxy-1",
        **{"quota_docker.io_remaining": 7, "quota_docker.io_seen": 8, "quota_docker.io_paused": 20},
    )
    assert read(tmp_path / "run").quotas == {"docker.io": {"remaining": 7, "seen": 8, "paused": 20}}


def test_the_last_transfers(tmp_path: Path) -> None:
    one = {"at": 5, "registry": "quay.io", "digest": "sha256:ab", "bytes": 7, "seconds": 0.5, "outcome": "ok"}
    (tmp_path / "transfers.json").write_text(json.dumps({"last": [one, {**one, "at": 9.5}, {"at": 1}, 3]}))
    assert read(tmp_path).transfers == (
        Transfer(9.5, "quay.io", "sha256:ab", 7, 0.5, "ok"),
        Transfer(5, "quay.io", "sha256:ab", 7, 0.5, "ok"),
    )
    (tmp_path / "transfers.json").write_text('{"last": 3}')
    assert read(tmp_path).transfers == ()


def test_memory_of_a_process() -> None:
    assert (resident(os.getpid()) or 0) > 1 << 20
    assert resident(0) is None
    assert resident(1 << 30) is None


def test_labels_are_bounded() -> None:
    label = bounded(frozenset({"quay.io"}))
    assert label("quay.io") == "quay.io"
    assert label("whatever.azurecr.io") == "other"
