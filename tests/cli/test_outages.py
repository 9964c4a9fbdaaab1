"""What `entrepot stats` says of upstreams that are down (rule 5)."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from entrepot.cache.embedded import open_records
from entrepot.cli.main import run
from entrepot.cli.outages import line, outages, owners
from entrepot.config.model import Config, RegistryEntry
from entrepot.upstream.breaker import State
from entrepot.upstream.outages import Outage

QUAY = Outage(State.OPEN, 1000.0, "cannot connect: connection refused", True, 1010.0, "me")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where quay.io has been down for 70 seconds."""
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(store))

    async def note() -> None:
        records = open_records(store)
        outage = Outage(State.OPEN, time.time() - 70.5, QUAY.why, True, time.time(), "me")
        await records.put("down/https://quay.io", outage.document(), ttl=30)
        await records.put("down/https://gone.example", outage.document(), ttl=0.001)
        await records.close()

    asyncio.run(note())
    return store


def test_for_people(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "down    https://quay.io (quay.io): for 1m 10s, cannot connect: connection refused"
    assert "gone.example" not in str(lines)


def test_for_programs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["down"].items()
    assert found[0] == "https://quay.io"
    assert found[1] | {"since": 0} == {
        "registries": ["quay.io"],
        "state": "open",
        "confirmed": True,
        "since": 0,
        "why": "cannot connect: connection refused",
    }
    assert time.time() - 100 < found[1]["since"] < time.time()


def test_nothing_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path))
    assert run(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["down"] == {}


def test_what_is_no_note_does_not_count() -> None:
    assert outages([("down/https://quay.io", {"state": "closed"}), ("down/x", {})]) == {}
    assert outages([("down/https://quay.io", QUAY.document())]) == {"https://quay.io": QUAY}


def test_whose_an_origin_is() -> None:
    config = Config(registries=(RegistryEntry("private.example:5000", upstream="http://10.0.0.7:5000"),))
    found = owners(
        [
            "https://registry-1.docker.io",
            "https://auth.docker.io",
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "http://10.0.0.7:5000",
            "https://cdn.example",
            "https://quay.io:8443",
        ],
        config,
    )
    assert list(found.values()) == [
        ["docker.io"],
        ["docker.io"],
        ["123456789012.dkr.ecr.eu-west-1.amazonaws.com"],
        ["private.example:5000"],
        [],
        [],
    ]


@pytest.mark.parametrize(
    ("state", "confirmed", "begins"),
    [(State.SUSPECT, False, "in doubt "), (State.SUSPECT, True, "down    "), (State.OPEN, False, "down    ")],
)
def test_what_is_not_sure_is_called_so(state: State, begins: str, *, confirmed: bool) -> None:
    outage = Outage(state, 1000.0, "answers with 503", confirmed, 1010.0, "me")
    assert line("https://cdn.example", outage, [], "5s") == f"{begins}https://cdn.example: for 5s, answers with 503"
