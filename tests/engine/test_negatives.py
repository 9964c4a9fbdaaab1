"""Absences are remembered for a moment, for who has heard them."""

from entrepot.engine.messages import Answer
from entrepot.engine.negatives import MOST, TTL, Negatives
from entrepot.headers import Headers


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


NOT_THERE = Answer(404, Headers([]), b"no", "refused")


def test_for_a_few_seconds_and_for_one_asker() -> None:
    clock = Clock()
    absent = Negatives(clock)
    absent.note(("quay.io", "/v2/a/manifests/1", "me"), NOT_THERE)
    assert absent.get(("quay.io", "/v2/a/manifests/1", "me")) is NOT_THERE
    assert absent.get(("quay.io", "/v2/a/manifests/1", "you")) is None
    clock.now += TTL
    assert absent.get(("quay.io", "/v2/a/manifests/1", "me")) is None


def test_a_clock_set_back_ends_it() -> None:
    clock = Clock()
    absent = Negatives(clock)
    absent.note(("a",), NOT_THERE)
    clock.now -= 1
    assert absent.get(("a",)) is None


def test_only_absence_is_remembered() -> None:
    absent = Negatives(Clock())
    for status in (200, 401, 403, 429, 500, 503):
        absent.note((str(status),), Answer(status, Headers([]), b""))
        assert absent.get((str(status),)) is None


def test_it_does_not_grow_without_bound() -> None:
    absent = Negatives(Clock())
    for number in range(MOST + 10):
        absent.note((str(number),), NOT_THERE)
    assert absent.get(("9",)) is None
    assert absent.get(("10",)) is NOT_THERE
