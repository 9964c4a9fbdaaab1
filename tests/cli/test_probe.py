import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrepot.certs.authority import Authority
from entrepot.certs.leaves import LeafIssuer
from entrepot.cli.probe import INTERVAL, Health, handshake, trust, watch


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    Authority.create(tmp_path / "ca", ["quay.io"], now=datetime.now(UTC))
    return tmp_path / "ca"


@pytest.fixture
async def port(certs: Path, tmp_path: Path) -> AsyncIterator[int]:
    """Where somebody serves quay.io."""
    leaf = LeafIssuer(Authority.load(certs), days=7, clock=lambda: datetime.now(UTC)).issue("quay.io")
    (tmp_path / "leaf.pem").write_bytes(leaf.chain_pem + leaf.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem")

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_a_worker_that_is_well(port: int, certs: Path) -> None:
    until = await handshake("127.0.0.1", port, "quay.io", certs)
    assert 6 * 86400 < until - datetime.now(UTC).timestamp() <= 7 * 86400


async def test_another_name_is_not_what_was_asked_for(port: int, certs: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake("127.0.0.1", port, "ghcr.io", certs)


async def test_another_ca_is_not_ours(port: int, tmp_path: Path) -> None:
    Authority.create(tmp_path / "other", ["quay.io"], now=datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake("127.0.0.1", port, "quay.io", tmp_path / "other")


async def test_nobody_there(certs: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening
        with pytest.raises(ConnectionRefusedError):
            await handshake("127.0.0.1", nobody.getsockname()[1], "quay.io", certs)


async def test_nobody_answers(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a socket whose worker hangs: the kernel accepts, nobody speaks."""
    monkeypatch.setattr("entrepot.cli.probe.TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        await handshake("127.0.0.1", silent.getsockname()[1], "quay.io", certs)


def test_after_a_rotation_both_are_trusted(certs: Path) -> None:
    assert len(trust(certs).get_ca_certs()) == 1
    other = Authority.create(certs.parent / "other", ["quay.io"], now=datetime.now(UTC))
    (certs / "previous").symlink_to(other.directory / (other.directory / "current").readlink())
    assert len(trust(certs).get_ca_certs()) == 2


def test_three_failures_are_sick_and_one_success_is_well() -> None:
    health = Health()
    assert health()
    for expected in (True, True, False, False):
        health.note(well=False)
        assert health() is expected
    health.note(well=True)
    assert health()
    health.note(well=False)
    assert health()


async def test_the_watch_goes_on() -> None:
    outcomes = [OSError("x"), TimeoutError(), ssl.SSLError("y"), None, OSError("z")]
    health = Health()
    verdicts: list[bool] = []

    async def probe() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    async def pause(seconds: float) -> None:
        assert seconds == INTERVAL
        verdicts.append(health())
        if not outcomes:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await watch(health, probe, pause)
    assert verdicts == [True, True, False, True, True]
