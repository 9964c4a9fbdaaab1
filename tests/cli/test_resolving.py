from pathlib import Path

import pytest

from entrepot.cli.resolving import own_resolver_addresses, resolvers
from entrepot.config import Config, Endpoint, Listen


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver 127.0.0.53\n")
    return file


def test_auto_is_the_system_without_ourselves(resolv_conf: Path, tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    behind.write_text("nameserver 10.0.0.3\n")
    found = resolvers(["auto"], ["127.0.0.1"], resolv_conf=resolv_conf, behind_stub=behind)
    assert found == (("10.0.0.2", 53), ("10.0.0.3", 53))


def test_what_is_listed_is_taken_in_order_and_once(resolv_conf: Path, tmp_path: Path) -> None:
    wanted: list[Endpoint | str] = [Endpoint("1.2.3.4", 5353), Endpoint("10.0.0.2"), "auto", Endpoint("1.2.3.4", 5353)]
    found = resolvers(wanted, ["127.0.0.1"], resolv_conf=resolv_conf, behind_stub=tmp_path / "none")
    assert found == (("1.2.3.4", 5353), ("10.0.0.2", 53), ("127.0.0.53", 53))


def test_no_resolv_conf(tmp_path: Path) -> None:
    assert resolvers(["auto"], [], resolv_conf=tmp_path / "none", behind_stub=tmp_path / "none") == ()


def test_our_responder_is_ours_on_port_53_only() -> None:
    assert own_resolver_addresses(Config(listen=Listen(address=("10.0.0.5",)))) == ["10.0.0.5"]
    assert "127.0.0.1" in own_resolver_addresses(Config())
    assert own_resolver_addresses(Config(listen=Listen(dns=5353))) == []
