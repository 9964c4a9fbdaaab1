import os
import resource
from pathlib import Path

import pytest

from entrepot.cli.capacity import raise_file_limit, worker_count

CORES = len(os.sched_getaffinity(0))


def test_what_is_wished_for_is_what_there_is(tmp_path: Path) -> None:
    assert worker_count(3, tmp_path / "cpu.max") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("10000 100000\n", 1),
        ("150000 100000\n", min(2, CORES)),
        ("99900000 100000\n", CORES),
        ("nonsense", CORES),
        ("5 0", CORES),
    ],
)
def test_one_per_core_we_may_use(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert worker_count(0, tmp_path / "cpu.max") == expected


def test_no_cgroups(tmp_path: Path) -> None:
    assert worker_count(0, tmp_path / "cpu.max") == CORES


def test_the_limit_on_files_is_as_high_as_we_may() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
