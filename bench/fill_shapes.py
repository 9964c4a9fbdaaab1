"""What a part of the miss benchmark hands over: rows of the table, what was measured, remarks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench import report


@dataclass(frozen=True, slots=True)
class Row:
    """Of the table: cells as text."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    wanted: str = ""
    met: bool | None = None
    """None: there is no target."""


@dataclass(slots=True)
class Part:
    """What one part found."""

    rows: list[Row] = field(default_factory=list)
    measured: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    peak_memory: Mapping[str, int] = field(default_factory=dict)

    def compare(
        self,
        what: str,
        peer: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        *,
        digits: int,
        wanted: str,
        met: Callable[[float], bool],
    ) -> None:
        """A row whose target is for the median of the ratios, ours to theirs."""
        ratios = report.ratios(ours, theirs)
        cells = report.spread(ours, digits), peer, report.spread(theirs, digits), report.spread(ratios, 2)
        self.rows.append(Row(what, *cells, wanted, met(median(ratios))))
        self.measured[what] = {"entrepot": list(ours), peer: list(theirs)}
