"""When one connection is not enough."""

from entrepot.upstream.pace import ENOUGH, LARGE, REST, SPAN, Pace, is_large


def run(pace: Pace, *, rate: float, seconds: float, waited: float = 1.0, start: float = 0.0) -> None:
    """Pieces every 10 ms at `rate`, of which we wait for the share `waited`."""
    steps, step = round(seconds / 0.01), 0.01
    for n in range(steps):
        at = start + n * step
        pace.arrived(round(rate * step), at + step * waited)
        pace.used(at + step)


def test_slow_for_two_spans_is_slow() -> None:
    pace = Pace(0.0)
    run(pace, rate=ENOUGH / 2, seconds=SPAN * 2 - 0.02)
    assert not pace.slow
    run(pace, rate=ENOUGH / 2, seconds=SPAN, start=SPAN * 2 - 0.02)
    assert pace.slow
    assert abs(pace.rate / (ENOUGH / 2) - 1) < 0.05


def test_a_fast_connection_is_enough() -> None:
    pace = Pace(0.0)
    run(pace, rate=ENOUGH * 1.1, seconds=SPAN * 10)
    assert not pace.slow


def test_a_slow_start_is_forgiven() -> None:
    pace = Pace(0.0)
    run(pace, rate=ENOUGH / 10, seconds=SPAN)
    run(pace, rate=ENOUGH * 2, seconds=SPAN * 3, start=SPAN)
    assert not pace.slow


def test_our_own_slowness_is_not_the_links() -> None:
    pace = Pace(0.0)
    run(pace, rate=ENOUGH / 2, seconds=SPAN * 10, waited=0.3)
    assert not pace.slow


def test_a_stall_counts_as_one_span() -> None:
    pace = Pace(0.0)
    pace.arrived(1, 29.0)
    pace.used(29.0)
    assert not pace.slow


def test_only_large_blobs_with_much_to_come_are_considered() -> None:
    assert not is_large(None, 0)
    assert not is_large(LARGE, 0)
    assert is_large(LARGE + 1, 0)
    assert is_large(LARGE * 2, LARGE * 2 - REST - 1)
    assert not is_large(LARGE * 2, LARGE * 2 - REST)
