"""Names of what a tag was: `TAG.20261124`, on that day, and `TAG.20261124T1530`, in that minute (UTC; DESIGN rule 7).

Decides which moment is meant: the end of the day or of the minute, so that what was seen within it counts.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_DATED: Final = re.compile(r"(.+)\.(\d{8})(?:T(\d{4}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Dated:
    """A tag, and when."""

    tag: str
    start: float  # epoch seconds of the beginning of the day or minute
    until: float  # epoch seconds of its end


@lru_cache(maxsize=512)
def dated(tag: str) -> Dated | None:
    """What a tag of this form names, if a tag is called so by nobody else; None for all other tags."""
    if (found := _DATED.fullmatch(tag)) is None:
        return None
    base, day, minute = found.groups()
    span = moment(day, minute or "")
    return None if span is None else Dated(base, *span)


def moment(day: str, minute: str = "") -> tuple[float, float] | None:
    """Beginning and end in epoch seconds; None where there is no such day or minute."""
    try:
        start = datetime.strptime(day + (minute or "0000"), "%Y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return None
    return start.timestamp(), (start + (timedelta(minutes=1) if minute else timedelta(days=1))).timestamp()
