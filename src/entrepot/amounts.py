"""Amounts in words for people: bytes and spans of time, the same on a terminal and on the page."""

from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def human(size: float) -> str:
    """Bytes with a binary unit."""
    number = float(size)
    for unit in _UNITS:
        if abs(number) < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{int(size)} B" if unit == "B" else f"{number:.1f} {unit}"


def ago(seconds: float) -> str:
    """A time span, in its two largest units."""
    seconds = max(0, int(seconds))
    for unit, scale, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= scale:
            return f"{seconds // scale}{unit} {seconds % scale // part}{smaller}"
    return f"{seconds}s"
