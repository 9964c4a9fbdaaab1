"""RFC 9110 section 14, for one range of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry.ranges import UNSATISFIABLE, Range, Unsatisfiable, content_range, parse_range


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        # The only form clients were seen to send: a resumed blob.
        ("bytes=10-", 100, Range(10, 100)),
        ("bytes=0-", 100, Range(0, 100)),
        ("bytes=0-1", 100, Range(0, 2)),  # stargz asks for this first
        ("bytes=99-", 100, Range(99, 100)),
        ("bytes=10-19", 100, Range(10, 20)),
        ("bytes=10-1000", 100, Range(10, 100)),
        ("bytes=0-0", 1, Range(0, 1)),
        ("bytes=-1", 100, Range(99, 100)),
        ("bytes=-1000", 100, Range(0, 100)),
        ("BYTES=1-2", 100, Range(1, 3)),
        ("bytes= 1-2 ", 100, Range(1, 3)),
        ("bytes=0001-0002", 100, Range(1, 3)),
        ("bytes=0-" + "9" * 5000, 100, Range(0, 100)),
        ("bytes=-" + "9" * 5000, 100, Range(0, 100)),
        # No byte of it exists.
        ("bytes=100-", 100, UNSATISFIABLE),
        ("bytes=100-200", 100, UNSATISFIABLE),
        ("bytes=" + "9" * 5000 + "-", 100, UNSATISFIABLE),
        ("bytes=0-", 0, UNSATISFIABLE),
        ("bytes=-0", 100, UNSATISFIABLE),
        ("bytes=-0", 0, UNSATISFIABLE),
        # To be answered with the whole.
        ("bytes=-5", 0, None),
        (None, 100, None),
        ("", 100, None),
        ("bytes", 100, None),
        ("bytes=", 100, None),
        ("bytes=-", 100, None),
        ("bytes=20-10", 100, None),
        ("bytes=200-150", 100, None),
        ("bytes=1-2,5-6", 100, None),
        ("bytes=1-2-3", 100, None),
        ("bytes=--1", 100, None),
        ("bytes=+1-2", 100, None),
        ("bytes=1 - 2", 100, None),
        ("bytes =1-2", 100, None),
        ("bytes=0x1-", 100, None),
        ("bytes=\u0661-", 100, None),
        ("byte\u017f=1-2", 100, None),  # the long s, which matches s where case is ignored
        ("items=1-2", 100, None),
        ("bytes=1-2\n", 100, None),
    ],
)
def test_parse_range(header: str | None, size: int, expected: Range | Unsatisfiable | None) -> None:
    assert parse_range(header, size) == expected


def test_content_range() -> None:
    assert content_range(Range(10, 20), 100) == "bytes 10-19/100"
    assert content_range(UNSATISFIABLE, 100) == "bytes */100"
    assert Range(10, 20).length == 10


RANGE_ALPHABET = st.text(alphabet="0123456789-, =", max_size=30).map(lambda text: "bytes=" + text)


@given(st.one_of(st.text(), RANGE_ALPHABET), st.integers(0, 10**13))
def test_a_range_is_never_empty_nor_outside(header: str, size: int) -> None:
    part = parse_range(header, size)
    if isinstance(part, Range):
        assert 0 <= part.start < part.stop <= size


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(1, 10**13))
def test_round_trip(first: int, length: int, size: int) -> None:
    part = parse_range(f"bytes={first}-{first + length}", size)
    expected = Range(first, min(first + length + 1, size)) if first < size else UNSATISFIABLE
    assert part == expected
