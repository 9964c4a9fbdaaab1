"""What a content network can do wrong with a blob, and what is to come of it: the table of `test_faults`.

Decides the outcomes; `faults` says what the keys of a fault mean. Where the size is `known`, a manifest has told it, as
it has to every real client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from tests.lab.images import KIB, MIB

type Fault = Mapping[str, Any]

SIZE = 2 * MIB  # bytes of the blob, which are random
HALF, QUARTER = SIZE // 2, SIZE // 4
LOST = 512 * KIB
"""Bytes that have left the upstream and may be fetched again: those not read yet when a connection broke."""
READ_TIMEOUT = 1.5  # seconds
PAGE = "<!doctype html><title>Sign in</title>" + "<p>This network wants to know you first.</p>\n" * 100


@dataclass(frozen=True, slots=True)
class Row:
    """A fault and what comes of it."""

    faults: Sequence[Fault]
    """What the content network does to one GET after the other, before it behaves."""
    starts: Sequence[int]
    """From which byte each of its GETs asks for the rest; a little earlier will do, see `LOST`."""
    _: KW_ONLY
    ends: Literal["whole", "short", "error", "nothing"] = "whole"
    """What the clients see: the blob, a 200 that is closed short of its length, an answer of 5xx, either of these."""
    again: int = 0
    """Bytes that may be fetched twice."""
    wrong: int = 0
    """How many times wrong bytes are reported, a line each."""
    for_ever: bool = False
    """The last fault goes on, and nothing is ever held."""
    known: bool = True
    """Whether the size is."""
    gate: int | None = QUARTER
    """Bytes after which the first answer dawdles until all clients have some; None if they cannot have any."""
    redirects: Sequence[Fault] = ()
    """What the registry does to one GET after the other."""
    astray: int = 0
    """How often it is asked for another because the last one led nowhere; what its status shows is counted anyway."""


def once(**fault: Any) -> Fault:
    return {**fault, "count": 1}


CUT = once(cut_after=HALF)
BREAKS = {
    "cut before the first byte": Row([once(cut_after=0)], [0, 0], gate=None),
    "cut after one byte": Row([once(cut_after=1)], [0, 1], gate=None, again=1),
    "cut in the middle": Row([CUT], [0, HALF], again=LOST),
    "cut before the last byte": Row([once(cut_after=SIZE - 1)], [0, SIZE - 1], again=LOST),
    "cut again and again": Row(
        [once(cut_after=QUARTER)] * 3, [0, QUARTER, HALF, HALF + QUARTER], gate=1000, again=3 * LOST
    ),
    "cut in the middle of chunks": Row([once(length=None, cut_after=HALF)], [0, HALF], again=LOST),
    "cut in the middle of chunks, size unknown": Row(
        [once(length=None, cut_after=HALF)], [0, HALF], known=False, gate=None, again=LOST
    ),
    "reset in the middle": Row([once(reset_after=HALF)], [0, HALF], again=LOST),
    "no answer": Row([once(hold=True)], [0, 0], gate=None),
    "stall before the first byte": Row([once(pause_after=0)], [0, 0], gate=None),
    "stall in the middle": Row([once(pause_after=HALF)], [0, HALF]),
    "slow": Row([once(rate=SIZE / 1.5 / READ_TIMEOUT)], [0]),
}
LIES = {
    "wrong byte": Row([once(wrong_at=HALF)], [0, 0], ends="short", wrong=1, again=SIZE),
    "wrong last byte": Row([once(wrong_at=SIZE - 1)], [0, 0], ends="short", wrong=1, again=SIZE),
    "wrong byte after a cut": Row(
        [CUT, once(wrong_at=SIZE - 9)], [0, HALF, 0], ends="short", wrong=1, again=SIZE + LOST
    ),
    "wrong byte in chunks": Row([once(length=None, wrong_at=HALF)], [0, 0], ends="short", wrong=1, again=SIZE),
    "wrong byte in chunks, size unknown": Row(
        [once(length=None, wrong_at=HALF)], [0, 0], ends="short", wrong=1, known=False, gate=None, again=SIZE
    ),
    "wrong byte for ever": Row([{"wrong_at": HALF}], [0, 0], ends="short", wrong=2, for_ever=True, again=SIZE),
    "length too small": Row([once(length=-1000)], [0, 0], wrong=1, gate=None, again=SIZE),
    "length too small, size unknown": Row([once(length=-1000)], [0, 0], ends="short", wrong=1, known=False, again=SIZE),
    "length too small for ever": Row(
        [{"length": -1000}], [0, 0], ends="nothing", wrong=2, for_ever=True, gate=None, again=SIZE
    ),
    "length too large": Row([once(length=1000, cut_after=SIZE)], [0, 0], wrong=1, gate=None, again=SIZE),
    "length too large, size unknown": Row(
        [once(length=1000, cut_after=SIZE)],
        [0, SIZE, 0],
        ends="short",
        wrong=1,
        known=False,
        again=SIZE + LOST,
    ),
    "html": Row([once(instead=PAGE)], [0, 0], wrong=1, gate=None, again=len(PAGE)),
    "html, size unknown": Row(
        [once(instead=PAGE)], [0, 0], ends="short", wrong=1, known=False, gate=100, again=len(PAGE)
    ),
    "html for ever": Row([{"instead": PAGE}], [0, 0], ends="nothing", wrong=2, for_ever=True, gate=None),
    "html for ever, size unknown": Row(
        [{"instead": PAGE}], [0, 0], ends="short", wrong=2, for_ever=True, known=False, gate=100
    ),
    "gzip": Row([once(gzip="body")], [0, 0], wrong=1, gate=None, again=SIZE + LOST),
    "gzip for ever, size unknown": Row(
        [{"gzip": "body"}], [0, 0], ends="short", wrong=2, for_ever=True, known=False, again=SIZE + LOST
    ),
    "gzip in name only": Row([once(gzip="label")], [0]),
    "chunks": Row([once(length=None)], [0]),
    "chunks, size unknown": Row([once(length=None)], [0], known=False, gate=None),
}
WAYS = {
    "redirect loop": Row([{"moved": True}], [0] * 10, ends="error", for_ever=True, gate=None),
    "redirect loop after a cut": Row([CUT, {"moved": True, "count": 6}], [0, *[HALF] * 7], astray=1, again=LOST),
    "relative redirect": Row([], [0], redirects=[once(relative=True)], gate=None),
    "relative redirect of the content network": Row([once(moved=True)], [0, 0], gate=None),
    "expired after a cut": Row([CUT, once(status=403)], [0, HALF, HALF], again=LOST),
    "expired twice after a cut": Row(
        [CUT, once(status=403)], [0, *[HALF] * 3], redirects=[once(), once(expired=True)], again=LOST
    ),
    "too late an offset": Row([CUT, once(shift=1000)], [0, HALF, HALF], again=HALF + LOST),
    "too early an offset": Row([CUT, once(shift=-1000)], [0, HALF], again=LOST + 1000),
    "bytes from elsewhere": Row(
        [CUT, once(from_elsewhere=-1000)], [0, HALF, 0], ends="short", wrong=1, again=SIZE + LOST
    ),
    "range ignored": Row([CUT, once(ignore_range=True)], [0, HALF], again=SIZE),
    "chunks after a cut": Row([CUT, once(length=None)], [0, HALF], again=LOST),
    "html after a cut": Row([CUT, once(instead=PAGE)], [0, HALF, HALF], again=LOST),
    "416 after a cut": Row([CUT, once(status=416)], [0, HALF, HALF], again=LOST),
    "503 after a cut": Row([CUT, once(status=503)], [0, HALF, HALF], again=LOST),
}
ROWS: Mapping[str, Row] = {**BREAKS, **LIES, **WAYS}
