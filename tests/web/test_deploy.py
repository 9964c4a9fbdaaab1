"""The example alerts and the dashboard name nothing that is not there: metrics, their labels, their values."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.web.test_metrics import everything

from entrepot.web.metrics import VERDICTS, families
from entrepot.web.readings import read
from entrepot.web.settings import WebSettings
from entrepot.web.snapshot import Gatherer, Snapshot

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS, DASHBOARD = DEPLOY / "prometheus-alerts.yml", DEPLOY / "grafana-dashboard.json"
METRIC = re.compile(r"\b(entrepot_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
OF_PROMETHEUS = {"instance", "job"}


def rules() -> list[dict[str, Any]]:
    document = YAML(typ="safe").load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document = json.loads(DASHBOARD.read_text())
    assert isinstance(document, dict)
    return document


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield variable["query"]["query"]


@pytest.fixture
def there(settings: WebSettings) -> dict[str, dict[str, set[str]]]:
    """The values of each label of each metric."""
    everything(settings.store)
    gatherer = Gatherer(settings)
    found = gatherer.gather(leaf=5.0)
    gatherer.close()
    values: dict[str, dict[str, set[str]]] = {}
    whole = Snapshot(found.now, read(settings.store / "run"), usage=found.usage, evicted=(0, 0),
                     authority=found.authority, leaf=5.0)  # fmt: skip
    for family in families(whole, settings):
        values[family.name] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values[family.name].setdefault(label, set()).add(value)
    values["entrepot_requests_total"]["verdict"] = set(VERDICTS)
    return values


def test_what_they_name_exists(there: dict[str, dict[str, set[str]]]) -> None:
    named = 0
    for expression in expressions():
        for metric, selectors in METRIC.findall(expression):
            assert metric in there, expression
            named += 1
            for label, how, text in LABEL.findall(selectors):
                if label in OF_PROMETHEUS:
                    continue
                assert label in there[metric], expression
                for value in text.split("|") if "~" in how else [text]:
                    assert value in there[metric][label], f"{expression}: {value}"
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            known = OF_PROMETHEUS.union(*(there[metric] for metric, _ in METRIC.findall(expression)))
            assert {label.strip() for label in labels.split(",")} <= known, expression
    assert named > 30


def test_every_metric_is_on_the_dashboard_or_in_an_alert(there: dict[str, dict[str, set[str]]]) -> None:
    used = {metric for expression in expressions() for metric, _ in METRIC.findall(expression)}
    assert set(there) - used == {
        "entrepot_counting_since_timestamp_seconds",
        "entrepot_handshakes_refused_total",
        "entrepot_processes",
        "entrepot_quota_reset_timestamp_seconds",
        "entrepot_store_blobs",
        "entrepot_evicted_blobs_total",
    }


def test_alerts_are_complete() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"]["summary"]


def test_panels_do_not_overlap_and_have_a_place_to_ask() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
