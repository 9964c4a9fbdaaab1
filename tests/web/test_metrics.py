"""The metrics: what is documented is what there is, labels are bounded, sums are right."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.web.conftest import Open, furnish, write_counts

from entrepot.cache.embedded import open_records
from entrepot.counters import labelled
from entrepot.web.metrics import families
from entrepot.web.readings import read
from entrepot.web.settings import WebSettings
from entrepot.web.snapshot import Gatherer, Snapshot

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
LINE = re.compile(r'([a-z_]+)(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? (-?[0-9.e+]+)')


def samples(text: str) -> dict[str, float]:
    """By name and labels; every line is as the format wants it."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            assert LINE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            assert name not in found
            found[name] = float(value)
    return found


def everything(store: Path) -> None:
    """Counts that leave no metric out."""
    write_counts(store, "proxy-0", requests=7, requests_hit=5, requests_miss=2, bytes_sent=90, bytes_hit=60,
                 **{labelled("requests", registry="quay.io", verdict="hit", kind="blob"): 3,
                    labelled("requests", registry="x.azurecr.io", verdict="hit", kind="blob"): 1,
                    "quota_docker.io_limit": 100, "quota_docker.io_remaining": 8, "quota_docker.io_reset": 2000,
                    "quota_docker.io_paused": 1500, "quota_x.azurecr.io_remaining": 3})  # fmt: skip
    write_counts(store, "proxy-1", requests=1, requests_hit=1, bytes_sent=10, bytes_hit=10, handshakes_refused=4)
    write_counts(store, "fetch-0", bytes_upstream=33, transfers_ok=2, transfers_failed=1)
    write_counts(store, "dns-0", queries=6, intercepted=4, forwarded=2, tcp=1)
    write_counts(store, "supervisor-0", restarts_proxy=3)


async def test_what_they_say(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    everything(settings.store)
    records = open_records(settings.store)
    outage = {"state": "open", "since": 5.0, "why": "x", "confirmed": True, "at": 6.0, "by": "proxy-0"}
    await records.put("down/https://quay.io", outage)
    await records.close()

    async def leaf() -> float:
        return 12345.0

    client = await open_page(leaf=leaf)
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(await answer.text())
    ca = found.pop('entrepot_certificate_expiry_timestamp_seconds{certificate="ca"}')
    assert ca > datetime.now(UTC).timestamp()
    for name, value in {
        'entrepot_requests_total{kind="blob",registry="quay.io",verdict="hit"}': 3,
        'entrepot_requests_total{kind="blob",registry="other",verdict="hit"}': 1,
        'entrepot_requests_total{kind="other",registry="other",verdict="hit"}': 2,
        'entrepot_requests_total{kind="other",registry="other",verdict="miss"}': 2,
        'entrepot_sent_bytes_total{source="store"}': 70,
        'entrepot_sent_bytes_total{source="upstream"}': 30,
        "entrepot_received_bytes_total": 33,
        'entrepot_transfers_total{outcome="ok"}': 2,
        'entrepot_transfers_total{outcome="failed"}': 1,
        'entrepot_transfers_total{outcome="wrong"}': 0,
        "entrepot_handshakes_refused_total": 4,
        'entrepot_upstream_state{registry="quay.io"}': 2,
        'entrepot_upstream_state{registry="docker.io"}': 0,
        'entrepot_quota_limit{registry="docker.io"}': 100,
        'entrepot_quota_remaining{registry="docker.io"}': 8,
        'entrepot_quota_reset_timestamp_seconds{registry="docker.io"}': 2000,
        'entrepot_throttled_until_timestamp_seconds{registry="docker.io"}': 1500,
        "entrepot_store_blobs": 2,
        "entrepot_store_limit_bytes": 10 << 30,
        "entrepot_evicted_blobs_total": 0,
        'entrepot_dns_queries_total{answer="intercepted"}': 4,
        'entrepot_dns_queries_total{answer="looped"}': 0,
        'entrepot_dns_events_total{event="tcp"}': 1,
        'entrepot_certificate_expiry_timestamp_seconds{certificate="leaf"}': 12345,
        'entrepot_process_restarts_total{role="proxy"}': 3,
        'entrepot_process_restarts_total{role="dns"}': 0,
        'entrepot_processes{role="proxy"}': 2,
        'entrepot_readable{part="disk"}': 1,
    }.items():
        assert found[name] == value, name
    assert sum(value for name, value in found.items() if name.startswith("entrepot_requests_total")) == 8
    assert not any("azurecr" in name for name in found)
    assert any(name.startswith('entrepot_build_info{python="3.') and 'version="1.2.3"' in name for name in found)
    assert found["entrepot_store_used_bytes"] > 0
    assert found['entrepot_process_resident_memory_bytes{process="proxy-1"}'] > 0


def test_of_a_box_that_has_only_just_begun(settings: WebSettings) -> None:
    """Nothing is there, and what cannot be read is said to be so."""
    named = {family.name: family for family in families(Snapshot(1.0, gaps={"records": "x"}), settings)}
    assert not named["entrepot_upstream_state"].samples
    assert [(sample.labels["part"], sample.value) for sample in named["entrepot_readable"].samples] == [
        ("records", 0), ("disk", 1), ("certificates", 1)
    ]  # fmt: skip


def test_a_store_that_is_none_leaves_a_gap(settings: WebSettings) -> None:
    settings.store.write_text("a file")
    gatherer = Gatherer(settings)
    found = gatherer.gather()
    gatherer.close()
    assert set(found.gaps) == {"records", "disk"}
    assert found.usage is None
    assert found.authority is not None


async def test_what_is_documented_is_what_there_is(settings: WebSettings) -> None:
    everything(settings.store)
    snapshot = Snapshot(1.0, read(settings.store / "run"))
    rows = re.findall(r"^\| `(entrepot_\w+)` \| (counter|gauge) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    found = {family.name: family for family in families(snapshot, settings)}
    assert set(documented) == set(found)
    for name, family in found.items():
        kind, labels = documented[name]
        assert family.kind == kind, name
        assert name.endswith("_total") is (kind == "counter"), name
        for sample in family.samples:
            assert set(sample.labels) == labels, name


@pytest.mark.parametrize("number", [1, 1000])
def test_the_number_of_series_does_not_grow_with_what_clients_make_up(settings: WebSettings, number: int) -> None:
    names = (f"r{n}.azurecr.io" for n in range(number))
    counts = {labelled("requests", registry=name, verdict="hit", kind="blob"): 1 for name in names}
    write_counts(settings.store, "proxy-0", requests_hit=number, **counts)
    snapshot = Snapshot(1.0, read(settings.store / "run"))
    (family,) = [one for one in families(snapshot, settings) if one.name == "entrepot_requests_total"]
    assert [(dict(sample.labels), sample.value) for sample in family.samples] == [
        ({"registry": "other", "verdict": "hit", "kind": "blob"}, number)
    ]
