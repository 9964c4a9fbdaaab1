import json
from pathlib import Path

import pytest

from entrepot.counters import Counters, labelled, labels_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proxy-0.json"


def written(file: Path) -> dict[str, object]:
    document = json.loads(file.read_text())
    assert isinstance(document, dict)
    return {key: value for key, value in document.items() if key not in {"started", "pid", "states"}}


def test_counts_add_up_and_states_replace_each_other(file: Path) -> None:
    counters = Counters(file, started=5.0)
    counters.add("requests")
    counters.add("requests", 2)
    counters.show({"quota_quay.io_remaining": 9, "quota_quay.io_paused": 7})
    counters.flush()
    assert written(file) == {"requests": 3, "quota_quay.io_remaining": 9, "quota_quay.io_paused": 7}
    counters.show({"quota_quay.io_remaining": 8})
    counters.flush()
    assert written(file) == {"requests": 3, "quota_quay.io_remaining": 8}


def test_what_has_not_changed_is_not_written(file: Path) -> None:
    counters = Counters(file, started=5.0)
    counters.show({"quota_quay.io_remaining": 9})
    counters.flush()
    file.unlink()
    counters.show({"quota_quay.io_remaining": 9})
    counters.flush()
    assert not file.exists()
    counters.add("requests")
    counters.flush()
    assert file.exists()


def test_who_takes_the_place_of_one_that_died_goes_on_from_what_it_has_left(file: Path) -> None:
    first = Counters(file, started=5.0)
    first.add("requests", 7)
    first.show({"quota_quay.io_remaining": 9})
    first.flush()
    second = Counters(file, started=50.0)
    second.add("requests")
    second.add("bytes_hit", 2)
    second.flush()
    assert written(file) == {"requests": 8, "bytes_hit": 2}  # what was shown is the other's, and no count
    assert json.loads(file.read_text())["started"] == 5.0
    third = Counters(file, started=60.0)
    third.set({"requests": 1})
    third.set({"requests": 3})
    third.flush()
    assert written(file) == {"requests": 11, "bytes_hit": 2}


@pytest.mark.parametrize("left", ["{torn", "[1]", '{"requests": "x", "started": "y"}'])
def test_what_cannot_be_read_is_as_good_as_nothing(file: Path, left: str) -> None:
    file.write_text(left)
    counters = Counters(file, started=5.0)
    counters.add("requests")
    counters.flush()
    assert written(file) == {"requests": 1}
    assert json.loads(file.read_text())["started"] == 5.0


def test_labels_go_both_ways() -> None:
    name = labelled("requests", verdict="hit", registry="registry.example:5000", kind="blob")
    assert name == "requests{kind=blob,registry=registry.example:5000,verdict=hit}"
    assert labels_of(name) == (
        "requests",
        {"kind": "blob", "registry": "registry.example:5000", "verdict": "hit"},
    )
    assert labels_of("requests_hit") == ("requests_hit", {})
