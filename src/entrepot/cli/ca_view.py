"""What `entrepot ca show` says about a CA, for people and for programs. Pure: the clock is an argument."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from entrepot.certs import names, profiles
from entrepot.certs.authority import fingerprint
from entrepot.certs.rotation import Published

# Before this is left of a CA's life `show` says so: a fleet takes weeks to be told of a new one.
_SOON: Final = timedelta(days=120)
_MANY: Final = 8


def name_of(certificate: x509.Certificate) -> str:
    """As people call it: "CA 3f9a1c22"."""
    return f"CA {profiles.short_id(certificate)}"


def _uncovered(certificate: x509.Certificate, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a new CA would cover and this one does not, and what none can."""
    permitted = profiles.permitted(certificate) or ()
    possible = {text: names.subtree(text) for text in wanted}
    new = [text for text, name in possible.items() if name is not None and names.covering(name, permitted) is None]
    return new, [text for text, name in possible.items() if name is None]


def _facts(certificate: x509.Certificate | None) -> dict[str, object] | None:
    if certificate is None:
        return None
    return {
        "id": profiles.short_id(certificate),
        "subject": certificate.subject.rfc4514_string(),
        "fingerprint": fingerprint(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "permitted": list(profiles.permitted(certificate) or ()),
    }


def as_object(path: Path, found: Published, wanted: Sequence[str]) -> dict[str, object]:
    """For programs; `wanted` are the subtrees that the configuration of today asks for."""
    missing, impossible = _uncovered(found.next or found.current, wanted)
    return {
        "path": str(path),
        "current": _facts(found.current),
        "next": _facts(found.next),
        "previous": _facts(found.previous),
        "missing": missing,
        "impossible": impossible,
    }


def as_lines(path: Path, found: Published, wanted: Sequence[str], now: datetime) -> Iterator[str]:
    """For people."""
    yield from _described_one(found.current, "")
    if found.next is not None:
        yield ""
        yield from _described_one(found.next, " (new: published, does not sign before `entrepot ca rotate --finish`)")
    yield ""
    yield f"  kept in      {path}"
    missing, impossible = _uncovered(found.next or found.current, wanted)
    if missing:
        yield f"  not covered  {' '.join(missing)}: `entrepot ca rotate` makes a CA that does"
    if impossible:
        yield f"  left out     {' '.join(impossible)}: a CA can be constrained to host names with a dot only"
    left = found.current.not_valid_after_utc - now
    if left < _SOON and found.next is None:
        yield f"  runs out     in {max(left.days, 0)} days: `entrepot ca rotate` makes the next"


def _described_one(certificate: x509.Certificate, remark: str) -> Iterator[str]:
    permitted = profiles.permitted(certificate) or ()
    yield f"Entrepot {name_of(certificate)}{remark}"
    yield f"  SHA-256      {fingerprint(certificate)}"
    yield f"  valid        {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
    yield f"  can sign for {len(permitted)} names and what is below them, no address, no e-mail, no URI:"
    yield from (f"               {line}" for line in _grouped(permitted))


def _grouped(permitted: Sequence[str]) -> Iterator[str]:
    """The names, one a line, but many of one parent in a single line: a cloud has a name per region."""
    groups: dict[str, list[str]] = {}
    for name in permitted:
        groups.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    for parent, members in groups.items():
        if len(members) > _MANY:
            yield f"{len(members)} below {parent}, such as {members[0]} (--json has them all)"
        else:
            yield from members
