import json
from pathlib import Path

import pytest

from entrepot.counters import Counters


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proxy-0.json"


def written(file: Path) -> dict[str, object]:
    document = json.loads(file.read_text())
    assert isinstance(document, dict)
    return {key: value for key, value in document.items() if key not in {"started", "pid"}}


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
