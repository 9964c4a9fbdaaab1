"""Numbers to Markdown, and Markdown into a page between its markers: nothing measured is ever typed by hand."""

import importlib.metadata
import json
import os
import platform
import statistics
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = Path(__file__).with_name("results")


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, minimum and maximum."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} - {high})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: both sides of a ratio had the same neighbours on the machine."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def section(rows: Sequence[Sequence[str]], *notes: str) -> str:
    """A table and what is to be said of it."""
    return "\n".join([table(rows), "", *notes])


def machine() -> str:
    """What this was measured on."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    cores = f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}"
    return f"{cores}, {memory / 2**20:.0f} GiB, Linux {platform.release()}"


def versions() -> dict[str, str]:
    """Of what Entrepot runs on."""
    from OpenSSL import SSL  # noqa: PLC0415  # only here

    found = {name: importlib.metadata.version(name) for name in ("entrepot", "mitmproxy", "pyopenssl", "cryptography")}
    found["openssl"] = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().split()[1]
    fast = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    found["python"] = platform.python_version() + ("" if fast else " (a build without --enable-optimizations)")
    return found


def save(path: Path, report: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def replace_section(name: str, text: str, page: Path = PAGE) -> None:
    """Puts `text` between the markers `<!-- begin NAME -->` and `<!-- end NAME -->`. Raises ValueError without them."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
