"""What the overview says, from a snapshot. Pure, but for no clock: ages are to the moment of the snapshot."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from entrepot.amounts import ago, human
from entrepot.upstream.breaker import State
from entrepot.web.metrics import FROM_STORE, requests
from entrepot.web.readings import bounded
from entrepot.web.settings import WebSettings
from entrepot.web.snapshot import Snapshot

type Mood = Literal["good", "warn", "bad", "none"]

_FETCHED: Final = frozenset(("miss", "joined"))


@dataclass(frozen=True, slots=True)
class Line:
    """A fact with a judgement."""

    name: str
    text: str
    mood: Mood = "none"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """All of the page."""

    hits: float | None
    """Share of requests for content that were answered from the store; None = there were none."""
    hit_bytes: float | None
    """The same by bytes sent."""
    requests: int
    sent: int  # bytes
    saved: int  # bytes that did not have to come from the Internet
    received: int  # bytes
    failures: int
    since: str
    trouble: tuple[Line, ...]
    """What somebody should know at once; empty = all is well."""
    registries: tuple[Line, ...]
    """Those that have been asked for, or are down, or have told us of a quota."""
    used: int  # bytes
    limit: int  # bytes
    free: int  # bytes
    min_free: int  # bytes
    blobs: int
    processes: tuple[Line, ...]


def overview(snapshot: Snapshot, settings: WebSettings) -> Overview:
    """Everything."""
    run, usage = snapshot.run, snapshot.usage
    total, every = run.total("proxy"), run.total()
    by_verdict = {name.removeprefix("requests_"): n for name, n in total.items() if name.startswith("requests_")}
    held = sum(by_verdict.get(verdict, 0) for verdict in FROM_STORE)
    content = held + sum(by_verdict.get(verdict, 0) for verdict in _FETCHED)
    sent, received = total["bytes_sent"], every["bytes_upstream"]
    return Overview(
        hits=held / content if content else None,
        hit_bytes=total["bytes_hit"] / sent if sent else None,
        requests=total["requests"],
        sent=sent,
        saved=max(0, sent - received),
        received=received,
        failures=by_verdict.get("failed", 0),
        since=ago(snapshot.now - run.started) if run.started else "",
        trouble=tuple(_trouble(snapshot, settings)),
        registries=tuple(_registries(snapshot, settings)),
        used=usage.used if usage else 0,
        limit=usage.size if usage else 0,
        free=usage.free if usage else 0,
        min_free=usage.min_free if usage else 0,
        blobs=usage.blobs if usage else 0,
        processes=tuple(_processes(snapshot)),
    )


def _trouble(snapshot: Snapshot, settings: WebSettings) -> Iterator[Line]:
    for origin, outage in sorted(snapshot.outages.items()):
        down = outage.confirmed or outage.state is State.OPEN
        whose = ", ".join(snapshot.owners.get(origin, ())) or "a download host"
        text = f"{'down' if down else 'in doubt'} for {ago(snapshot.now - outage.since)}: {outage.why}"
        yield Line(f"{origin} ({whose})", text, "bad" if down else "warn")
    for registry, numbers in snapshot.run.quotas.items():
        if (paused := numbers.get("paused", 0)) > snapshot.now:
            yield Line(registry, f"throttles us for {ago(paused - snapshot.now)} more", "warn")
        elif numbers.get("remaining", 1) <= 0:
            yield Line(registry, "nothing is left of the quota; what is held is served", "warn")
    if (usage := snapshot.usage) is not None and usage.free < usage.min_free:
        yield Line("disk", f"{human(usage.free)} are free, {human(usage.min_free)} should be", "bad")
    if (found := snapshot.authority) is not None:
        left = found.current.not_after - snapshot.now
        if left < 120 * 86400 and found.next is None:
            yield Line("CA", f"ends in {ago(left)}: run `entrepot ca rotate`", "bad" if left < 30 * 86400 else "warn")
    if snapshot.leaf is None and settings.https_port:
        yield Line("TLS", "the box cannot show a certificate to itself: no worker answers", "bad")
    for part, why in snapshot.gaps.items():
        yield Line(part, why, "warn")


def _registries(snapshot: Snapshot, settings: WebSettings) -> Iterator[Line]:
    known = frozenset(settings.registries)
    asked = {registry for registry, _, _ in requests(snapshot.run, bounded(known))}
    troubled = {name for names in snapshot.owners.values() for name in names}
    for registry in sorted((asked | troubled | set(snapshot.run.quotas)) - {"other"}):
        outage, quota = snapshot.outage_of(registry), snapshot.run.quotas.get(registry, {})
        detail = ""
        if "remaining" in quota:
            detail = f"{quota['remaining']} pulls left" + (f" of {quota['limit']}" if "limit" in quota else "")
        if outage is None:
            yield Line(registry, "answers", "good", detail)
        else:
            down = outage.confirmed or outage.state is State.OPEN
            yield Line(registry, "down" if down else "in doubt", "bad" if down else "warn", detail or outage.why)


def _processes(snapshot: Snapshot) -> Iterator[Line]:
    died = snapshot.run.total("supervisor")
    for process in snapshot.run.processes:
        if process.role != "supervisor":
            yield Line(process.name, f"pid {process.pid}" if process.pid else "")
    for name, number in sorted(died.items()):
        if number and name.startswith("restarts_"):
            yield Line(name.removeprefix("restarts_"), f"started again {number} times", "warn")


def percent(share: float | None) -> str:
    """For people; a dash where there is nothing to have a share of."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def part(one: float, whole: float) -> float:
    """A share, from 0 to 1."""
    return min(1.0, max(0.0, one / whole)) if whole > 0 else 0.0


def short(digest: str) -> str:
    """As docker shows them."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def worst(lines: Iterable[Line]) -> Mood:
    """The mood of the page."""
    moods = {line.mood for line in lines}
    return "bad" if "bad" in moods else "warn" if "warn" in moods else "good"
