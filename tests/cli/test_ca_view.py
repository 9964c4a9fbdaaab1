from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from entrepot.certs import rotation
from entrepot.certs.authority import Authority
from entrepot.cli import ca_view

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAMES = ["quay.io", *(f"dkr.ecr.region-{number}.amazonaws.com" for number in range(40))]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Authority.create(tmp_path / "ca", NAMES, now=NOW).directory


def lines(directory: Path, now: datetime = NOW, wanted: list[str] | None = None) -> str:
    found = rotation.published(directory)
    return "\n".join(ca_view.as_lines(directory, found, NAMES if wanted is None else wanted, now))


def test_names_that_are_many_of_a_kind_take_one_line(directory: Path) -> None:
    said = lines(directory)
    assert "can sign for 41 names" in said
    assert "40 below amazonaws.com, such as dkr.ecr.region-0.amazonaws.com" in said
    assert "quay.io" in said
    assert said.count("amazonaws.com") == 2


def test_it_warns_in_time(directory: Path) -> None:
    end = rotation.published(directory).current.not_valid_after_utc
    assert "runs out" not in lines(directory, end - timedelta(days=121))
    assert "runs out     in 30 days: `entrepot ca rotate`" in lines(directory, end - timedelta(days=30))
    assert "in 0 days" in lines(directory, end + timedelta(days=30))
    rotation.begin(directory, NAMES, now=NOW)
    assert "runs out" not in lines(directory, end - timedelta(days=30)), "it is being seen to"


def test_the_next_one_is_told_from_the_current(directory: Path) -> None:
    begun = rotation.begin(directory, NAMES, now=NOW)
    assert begun.next is not None
    first, second = (ca_view.name_of(certificate) for certificate in begun.trusted)
    said = lines(directory)
    assert said.index(first) < said.index(f"{second} (new: published, does not sign before")


def test_what_is_missing_is_judged_by_the_newest(directory: Path) -> None:
    wanted = [*NAMES, "ghcr.io", "box"]
    found = ca_view.as_object(directory, rotation.published(directory), wanted)
    assert (found["missing"], found["impossible"]) == (["ghcr.io"], ["box"])
    begun = rotation.begin(directory, wanted, now=NOW)
    assert ca_view.as_object(directory, begun, wanted)["missing"] == []
