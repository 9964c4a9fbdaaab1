"""The metrics, from a snapshot. Pure. `docs/metrics.md` documents each; a test holds the two together.

Labels are bounded: a registry is one of the catalogue or the configuration, all others are "other"; no image, tag,
digest, client or account is ever a label. Counts are of all processes since `entrepot up`, over their restarts.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from entrepot.counters import labels_of
from entrepot.upstream.breaker import State
from entrepot.web.exposition import Family, Sample, one
from entrepot.web.readings import Run, bounded, resident
from entrepot.web.settings import WebSettings
from entrepot.web.snapshot import Snapshot

VERDICTS: Final = (
    "hit",
    "held",
    "proved",
    "revalidated",
    "miss",
    "joined",
    "stale",
    "pass",
    "refused",
    "denied",
    "failed",
    "through",
)
FROM_STORE: Final = frozenset(("hit", "held", "proved", "revalidated", "stale"))
KINDS: Final = frozenset(("manifest", "blob", "list", "ping", "token", "other"))
OTHER: Final = "other"
STATES: Final = {State.CLOSED: 0, State.SUSPECT: 1, State.OPEN: 2}
_ANSWERS: Final = (
    "intercepted", "special", "cached", "forwarded", "joined", "refused", "malformed", "overloaded", "looped",
)  # fmt: skip
_EVENTS: Final = ("tcp", "bypassed", "failed", "timeouts", "strays", "unsent", "crashed")
_PARTS: Final = ("records", "disk", "certificates")


def families(snapshot: Snapshot, settings: WebSettings) -> Iterator[Family]:
    """All of them, in the order in which they are shown; those that nothing is known of have no samples."""
    label = bounded(frozenset(settings.registries))
    yield from _about(snapshot, settings)
    yield from _served(snapshot.run, label)
    yield from _upstream(snapshot, settings)
    yield from _quotas(snapshot.run, label)
    yield from _disk(snapshot)
    yield from _dns(snapshot.run)
    yield _certificates(snapshot)
    yield from _processes(snapshot.run)


def _about(snapshot: Snapshot, settings: WebSettings) -> Iterator[Family]:
    info = one(1, version=settings.version, python=platform.python_version())
    yield Family("entrepot_build_info", "gauge", "What runs; always 1.", (info,))
    started = snapshot.run.started
    yield Family(
        "entrepot_counting_since_timestamp_seconds",
        "gauge",
        "Since when the counters count.",
        (one(started),) if started else (),
    )
    yield Family(
        "entrepot_readable",
        "gauge",
        "Whether a part of what these metrics are made of could be read.",
        tuple(one(int(part not in snapshot.gaps), part=part) for part in _PARTS),
    )


def requests(run: Run, label: Callable[[str], str]) -> Counter[tuple[str, str, str]]:
    """By (registry, verdict, kind). What was counted by its verdict alone is of "other" registry and kind."""
    found: Counter[tuple[str, str, str]] = Counter()
    for name, value in run.total("proxy").items():
        bare, labels = labels_of(name)
        if bare == "requests" and labels:
            kind, verdict = labels.get("kind", OTHER), labels.get("verdict", OTHER)
            key = label(labels.get("registry", "")), verdict, kind if kind in KINDS else OTHER
            found[key] += value
            found[OTHER, verdict, OTHER] -= value  # it is among those below, too
        elif bare.startswith("requests_"):
            found[OTHER, bare.removeprefix("requests_"), OTHER] += value
    return Counter({key: value for key, value in found.items() if value > 0 and key[1] in VERDICTS})


def _served(run: Run, label: Callable[[str], str]) -> Iterator[Family]:
    total = run.total("proxy")
    yield Family(
        "entrepot_requests_total",
        "counter",
        "Requests answered, by registry, verdict and kind.",
        tuple(
            one(value, registry=registry, verdict=verdict, kind=kind)
            for (registry, verdict, kind), value in sorted(requests(run, label).items())
        ),
    )
    held = total["bytes_hit"]
    yield Family(
        "entrepot_sent_bytes_total",
        "counter",
        "Bytes of bodies sent to clients, by where they came from.",
        (one(held, source="store"), one(max(0, total["bytes_sent"] - held), source="upstream")),
    )
    every = run.total()
    yield Family(
        "entrepot_received_bytes_total",
        "counter",
        "Bytes of blobs that came from registries.",
        (one(every["bytes_upstream"]),),
    )
    yield Family(
        "entrepot_transfers_total",
        "counter",
        "Transfers of blobs from registries that have ended, by outcome; wrong = not the bytes of the digest.",
        tuple(one(every[f"transfers_{outcome}"], outcome=outcome) for outcome in ("ok", "failed", "wrong")),
    )
    yield Family(
        "entrepot_handshakes_refused_total",
        "counter",
        "TLS connections for names that are not intercepted.",
        (one(total["handshakes_refused"]),),
    )


def _upstream(snapshot: Snapshot, settings: WebSettings) -> Iterator[Family]:
    samples = []
    for registry in settings.registries if "records" not in snapshot.gaps else ():
        outage = snapshot.outage_of(registry)
        state = STATES[outage.state] if outage else STATES[State.CLOSED]
        samples.append(one(2 if outage and outage.confirmed else state, registry=registry))
    yield Family(
        "entrepot_upstream_state",
        "gauge",
        "Whether a registry is asked: 0 = yes, 1 = in doubt, 2 = no, it is down.",
        tuple(samples),
    )


def _quotas(run: Run, label: Callable[[str], str]) -> Iterator[Family]:
    for key, name, text in (
        ("limit", "entrepot_quota_limit", "Pulls that a registry allows in its window."),
        ("remaining", "entrepot_quota_remaining", "Pulls that are left of it, as the registry said last."),
        ("reset", "entrepot_quota_reset_timestamp_seconds", "When there will be more."),
        ("paused", "entrepot_throttled_until_timestamp_seconds", "Until when a registry has told us to wait."),
    ):
        found = {label(name): numbers[key] for name, numbers in run.quotas.items() if key in numbers}
        found.pop(OTHER, None)  # numbers of different registries do not add up
        yield Family(name, "gauge", text, tuple(one(value, registry=name) for name, value in sorted(found.items())))


def _disk(snapshot: Snapshot) -> Iterator[Family]:
    usage, evicted = snapshot.usage, snapshot.evicted
    for name, text, key in (
        ("entrepot_store_used_bytes", "What is held, and set aside for what is coming.", "used"),
        ("entrepot_store_limit_bytes", "What may be held.", "size"),
        ("entrepot_store_blobs", "Blobs that are held.", "blobs"),
        ("entrepot_disk_free_bytes", "Free on the file system of the store.", "free"),
        ("entrepot_disk_min_free_bytes", "What is to stay free on it.", "min_free"),
    ):
        yield Family(name, "gauge", text, () if usage is None else (one(getattr(usage, key)),))
    yield Family(
        "entrepot_evicted_blobs_total",
        "counter",
        "Blobs that had to go for others.",
        () if evicted is None else (one(evicted[0]),),
    )
    yield Family(
        "entrepot_evicted_bytes_total", "counter", "Their bytes.", () if evicted is None else (one(evicted[1]),)
    )


def _dns(run: Run) -> Iterator[Family]:
    total = run.total("dns")
    there = any(process.role == "dns" for process in run.processes)
    answers = tuple(one(total[answer], answer=answer) for answer in _ANSWERS if there)
    yield Family("entrepot_dns_queries_total", "counter", "DNS queries, by what became of them.", answers)
    events = tuple(one(total[event], event=event) for event in _EVENTS if there)
    yield Family("entrepot_dns_events_total", "counter", "What else happened while answering them.", events)


def _certificates(snapshot: Snapshot) -> Family:
    samples: list[Sample] = []
    if (found := snapshot.authority) is not None:
        samples.append(one(found.current.not_after, certificate="ca"))
        if found.next is not None:
            samples.append(one(found.next.not_after, certificate="next_ca"))
    if snapshot.leaf is not None:
        samples.append(one(snapshot.leaf, certificate="leaf"))
    return Family(
        "entrepot_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate ends: the CA, the one to come, the leaf that clients are shown.",
        tuple(samples),
    )


def _processes(run: Run) -> Iterator[Family]:
    roles = Counter(process.role for process in run.processes)
    yield Family(
        "entrepot_processes",
        "gauge",
        "Processes, by role.",
        tuple(one(n, role=role) for role, n in sorted(roles.items())),
    )
    died = run.total("supervisor")
    yield Family(
        "entrepot_process_restarts_total",
        "counter",
        "Processes that died and were started again, by role.",
        tuple(one(died[f"restarts_{role}"], role=role) for role in sorted({*roles, *_dead(died)} - {"supervisor"})),
    )
    memory = [(process.name, resident(process.pid)) for process in run.processes if process.pid]
    yield Family(
        "entrepot_process_resident_memory_bytes",
        "gauge",
        "Memory of each process.",
        tuple(one(size, process=name) for name, size in memory if size is not None),
    )


def _dead(died: Counter[str]) -> set[str]:
    return {name.removeprefix("restarts_") for name in died}
