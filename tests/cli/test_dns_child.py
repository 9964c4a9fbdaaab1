import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from entrepot.certs.authority import Authority
from entrepot.cli import dns_child
from entrepot.cli.brief import Brief, leave_line, reload_line
from entrepot.cli.dns_child import Service, dns_settings, intercepted, probed_name
from entrepot.cli.networks import allowed
from entrepot.config import Certs, Config, Dns, Endpoint, Listen, RegistryEntry, Store
from entrepot.config.overrides import catalogue, subtrees
from entrepot.dns.settings import private_networks
from entrepot.dns.sockets import bind
from entrepot.tasks import spawn


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With a CA for the built-in registries only, and one more registry."""
    (tmp_path / "store/run").mkdir(parents=True)
    made = Config(
        listen=Listen(address=("127.0.0.1",), https=8443, dns=5353),
        certs=Certs(path=tmp_path / "ca"),
        store=Store(path=tmp_path / "store"),
        dns=Dns(upstream=(Endpoint("10.0.0.2", 5353),), ttl=29.6),
        registries=(RegistryEntry("registry.example"),),
    )
    Authority.create(made.certs.path, subtrees(Config()), now=datetime.now(UTC))
    return made


def test_the_responder_is_told_what_is_configured(config: Config) -> None:
    made = dns_settings(config, lambda: False)
    assert made.upstream == (("10.0.0.2", 5353),)
    assert made.advertise == ("auto",)
    assert made.allow == private_networks()
    assert made.ttl == 30
    assert made.fail_open
    assert not made.healthy()


def test_a_name_the_ca_cannot_sign_for_is_left_alone(config: Config) -> None:
    """It would fail at every client, where without us it would not."""
    leads_to_us = intercepted(catalogue(config), Authority.load(config.certs.path))
    assert leads_to_us("quay.io")
    assert leads_to_us("acme.azurecr.io")
    assert not leads_to_us("registry.example")
    assert not leads_to_us("example.com")


def test_no_resolver_is_told(config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_child, "resolvers", lambda wanted, own: ())
    assert dns_settings(config, lambda: True).upstream == ()
    assert "set dns.upstream" in caplog.text


def test_who_may_ask() -> None:
    extra = ip_network("100.64.0.0/10")
    assert allowed(("private", extra, extra)) == (*private_networks(), extra)
    assert allowed((extra,)) == (extra,)
    assert allowed((extra, "any")) == "any"


def test_the_probe_asks_for_a_name_there_is_a_certificate_for(config: Config, tmp_path: Path) -> None:
    assert probed_name(config) is not None
    Authority.create(tmp_path / "other", ["nobody.example"], now=datetime.now(UTC))
    assert probed_name(replace(config, certs=Certs(path=tmp_path / "other"))) is None


async def test_health_is_of_the_workers(config: Config) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        service = Service(Brief(config, 0, (), nobody.getsockname(), "entrepot-1a"))
        with pytest.raises(ConnectionRefusedError):
            await service.probe()


@pytest.mark.parametrize("reason", ["no workers here", "fail_open is off"])
async def test_where_there_is_nothing_to_probe_all_is_well(config: Config, reason: str) -> None:
    probe = None
    if reason == "fail_open is off":
        config = replace(config, dns=replace(config.dns, fail_open=False))
        probe = ("127.0.0.1", 9)
    await Service(Brief(config, 0, (), probe, "entrepot-1a")).probe()


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writing
    if writing is not None:
        try:
            os.close(writing)
        except OSError:
            return


class Asker(asyncio.DatagramProtocol):
    """Asks for an A record and has the reply."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.replies.put_nowait(data)


async def ask(port: int, name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(Asker, remote_addr=("127.0.0.1", port))
    try:
        transport.sendto(query)
        async with asyncio.timeout(20):
            return await asker.replies.get()
    finally:
        transport.close()


@pytest.fixture
async def serving(
    config: Config, orders: int, capfd: pytest.CaptureFixture[str]
) -> AsyncIterator[tuple[int, asyncio.Task[None]]]:
    """A whole DNS process but for the process: its port, and its task."""
    sockets = bind(["127.0.0.1"], 0)
    port = sockets[0].getsockname()[1]
    descriptors = tuple(sock.detach() for sock in sockets)
    task = spawn(dns_child.serve(Brief(config, 0, descriptors, None, "entrepot-1a")), name="dns")
    yield port, task
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
    await task


OURS = socket.inet_aton("127.0.0.1")


async def test_it_answers_and_counts_and_stops(
    serving: tuple[int, asyncio.Task[None]], config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    port, task = serving
    assert (await ask(port, "quay.io")).endswith(OURS)
    assert json.loads((config.store.path / "run/dns-0.json").read_text())["started"] > 0
    assert "ready" in capfd.readouterr().out.splitlines()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 20)


async def test_a_change_is_taken_up(
    serving: tuple[int, asyncio.Task[None]], config: Config, orders: int, caplog: pytest.LogCaptureFixture
) -> None:
    port, _ = serving
    assert (await ask(port, "quay.io")).endswith(b"\x00\x00\x00\x1e\x00\x04" + OURS)
    changed = replace(config, dns=replace(config.dns, ttl=7.0))
    os.write(orders, reload_line(changed.to_json()))
    async with asyncio.timeout(20):
        while not (await ask(port, "quay.io")).endswith(b"\x00\x00\x00\x07\x00\x04" + OURS):
            pass


async def test_it_steps_aside_before_the_box_stops(
    serving: tuple[int, asyncio.Task[None]], config: Config, orders: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says then is not ours: here nobody upstream answers, and so it says that it does not know."""
    caplog.set_level("INFO", "entrepot.dns")
    port, task = serving
    assert (await ask(port, "quay.io")).endswith(OURS)
    os.write(orders, leave_line())
    os.write(orders, reload_line(config.to_json()))  # changes nothing about that
    async with asyncio.timeout(20):
        while "configuration reloaded" not in caplog.text:
            await asyncio.sleep(0.01)
    assert not (await ask(port, "quay.io")).endswith(OURS)
    assert not task.done()


async def test_where_dns_may_not_step_aside_it_does_not(
    serving: tuple[int, asyncio.Task[None]], config: Config, orders: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "entrepot.dns")
    port, _ = serving
    os.write(orders, reload_line(replace(config, dns=replace(config.dns, fail_open=False)).to_json()))
    os.write(orders, leave_line())
    async with asyncio.timeout(20):
        while "going to stop" not in caplog.text:
            await asyncio.sleep(0.01)
    assert (await ask(port, "quay.io")).endswith(OURS)


async def test_a_change_that_cannot_be_taken_up_changes_nothing(
    serving: tuple[int, asyncio.Task[None]], config: Config, orders: int, caplog: pytest.LogCaptureFixture
) -> None:
    port, task = serving
    bad = replace(config, certs=Certs(path=config.certs.path / "none"))
    os.write(orders, reload_line(bad.to_json()))
    async with asyncio.timeout(20):
        while "configuration not reloaded" not in caplog.text:
            await ask(port, "quay.io")
    assert (await ask(port, "quay.io")).endswith(OURS)
    assert not task.done()


async def test_the_end_of_its_orders_is_the_end(serving: tuple[int, asyncio.Task[None]], orders: int) -> None:
    os.close(orders)
    await asyncio.wait_for(serving[1], 20)
