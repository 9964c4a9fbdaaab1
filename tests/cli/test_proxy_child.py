import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrepot.addons.worker import WorkerSettings
from entrepot.certs.authority import Authority
from entrepot.cli import proxy_child
from entrepot.cli.brief import Brief
from entrepot.cli.decisions import decisions
from entrepot.config import (
    Advertise,
    Certs,
    Config,
    Endpoint,
    Listen,
    PasswordFile,
    Policy,
    RegistryEntry,
    Store,
    Upstream,
)
from entrepot.config.overrides import subtrees


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        listen=Listen(address=("10.0.0.5",), https=8443, workers=3, drain=7.0),
        advertise=Advertise(("auto", "10.0.0.6")),
        certs=Certs(path=tmp_path / "ca", leaf_days=3),
        store=Store(path=tmp_path / "store"),
        upstream=Upstream(
            resolvers=(Endpoint("10.0.0.2", 5353),), connect_timeout=1.5, read_timeout=2.5, bandwidth=5000
        ),
        policy=Policy(tag_ttl=11.0, access_ttl=12.0),
        registries=(RegistryEntry("registry.example", tag_ttl=1.0, bandwidth=2000),),
    )


def test_the_worker_is_told_what_is_configured(config: Config) -> None:
    made = proxy_child.settings(Brief(config, 4, (7, 8), None, "entrepot-1a"))
    assert made.index == 4
    assert made.sockets == (7, 8)
    assert (made.store, made.certs, made.leaf_days) == (config.store.path, config.certs.path, 3)
    assert made.drain == 7.0
    assert made.nameservers == (("10.0.0.2", 5353),)
    assert made.own_addresses == frozenset({"10.0.0.5", "10.0.0.6"})
    assert (made.connect_timeout, made.read_timeout) == (1.5, 2.5)
    assert made.pseudonym == "entrepot-1a"


def test_what_may_change(config: Config) -> None:
    catalogue, policy = decisions(config)
    assert (policy.tag, policy.access) == (11.0, 12.0)
    assert (policy.bandwidth, policy.workers) == (5000, 3)
    match = catalogue.match("registry.example")
    assert match is not None
    assert policy.tag_ttl(match.registry, "org/app", "1") == 1.0
    assert match.registry.bandwidth == 2000


def test_names_beyond_the_ca_are_told(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    Authority.create(config.certs.path, subtrees(Config()), now=datetime.now(UTC))
    proxy_child.warn_of_missing(config)
    assert "the CA cannot sign for registry.example: not intercepted" in caplog.text
    caplog.clear()
    proxy_child.warn_of_missing(Config(certs=config.certs))
    assert caplog.text == ""


def test_a_ca_that_is_gone_is_told_and_survived(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    proxy_child.warn_of_missing(config)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize(("index", "warnings"), [(0, 1), (1, 0)])
def test_one_of_the_workers_warns(
    config: Config,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    warnings: int,
) -> None:
    Authority.create(config.certs.path, subtrees(Config()), now=datetime.now(UTC))
    called: list[tuple[WorkerSettings, Mapping[str, object]]] = []

    def work(
        settings: WorkerSettings, document: Mapping[str, object], build: Callable[[Mapping[str, object]], object]
    ) -> None:
        called.append((settings, document))
        build(document)

    monkeypatch.setattr(proxy_child, "work", work)
    brief = Brief(config, index, (), None, "entrepot-1a")
    proxy_child.run(brief)
    assert called == [(proxy_child.settings(brief), config.to_json())]
    assert len(caplog.records) == warnings


def test_credentials_that_are_not_to_be_had_are_told(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the file, and with what to do."""
    (tmp_path / "password").write_text("hunter2")
    (tmp_path / "password").chmod(0o644)
    entries = (
        RegistryEntry("quay.io", credentials=PasswordFile("u", tmp_path / "password")),
        RegistryEntry("ghcr.io", credentials=PasswordFile("u", tmp_path / "nowhere")),
    )
    proxy_child.warn_of_credentials(replace(config, registries=entries))
    assert [record.getMessage() for record in caplog.records] == [
        f"credentials for quay.io: {tmp_path}/password: other users can read or change it, so it is not used; "
        f"run `chmod o= {tmp_path}/password`",
        f"credentials for ghcr.io: {tmp_path}/nowhere: no such file or directory",
    ]


def test_where_credentials_are_is_known_and_what_they_are_is_not(config: Config, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2")
    place = PasswordFile("u", tmp_path / "password")
    asked = replace(config, registries=(RegistryEntry("quay.io", credentials=place, share="public"),))
    handed_over = asked.to_json()
    assert "hunter2" not in repr(handed_over)
    registry = decisions(Config.from_json(handed_over))[0].registry("quay.io")
    assert registry is not None
    assert (registry.credentials, registry.share) == (place, "public")
    assert "hunter2" not in repr(registry)
