"""The `Range` request header, RFC 9110 section 14, as far as a cache of blobs must understand it.

Decides which bytes of a representation of known size are asked for. Several ranges in one request, other
units and malformed headers are not refused: the answer to them is the whole, which section 14.2 allows.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

# RFC 9110 14.1: unit names are case-insensitive. White space is not in the grammar of one range, only
# around the elements of a list, and one range is a list of one.
_ONE_RANGE = re.compile(r"[ \t]*bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes from `start` up to, not including, `stop`; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Enum):
    """The type of `UNSATISFIABLE`: a valid range of which no byte exists, to be answered 416."""

    UNSATISFIABLE = "unsatisfiable"


UNSATISFIABLE: Final = Unsatisfiable.UNSATISFIABLE


def parse_range(header: str | None, size: int) -> Range | Unsatisfiable | None:
    """What part of `size` bytes `header` asks for; None means the whole, to be answered 200."""
    if header is None:
        return None
    found = _ONE_RANGE.fullmatch(header)
    if found is None:
        return None
    first, last = found[1], found[2]
    if first:
        start = _number(first)
        stop = _number(last) + 1 if last else size
        if last and stop <= start:
            return None  # 14.1.1: last before first makes the header invalid
        return Range(start, min(stop, size)) if start < size else UNSATISFIABLE
    if not last:
        return None
    suffix = _number(last)
    if suffix == 0:
        return UNSATISFIABLE
    if size == 0:
        return None  # 14.1.2 calls it satisfiable, but Content-Range has no way to say "no bytes"
    return Range(max(0, size - suffix), size)


def content_range(part: Range | Unsatisfiable, size: int) -> str:
    """The `Content-Range` of a 206, or of the 416 for `UNSATISFIABLE`."""
    if isinstance(part, Range):
        return f"bytes {part.start}-{part.stop - 1}/{size}"
    return f"bytes */{size}"


def _number(digits: str) -> int:
    # Twenty digits exceed every size there is; more would only cost time, and Python refuses 4301 of them.
    return int(digits.lstrip("0")[:20] or "0")
