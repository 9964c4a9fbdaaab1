"""The configuration in the terms of the pages, and the certificate that clients are shown."""

import socket
import ssl
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from entrepot.cli import web_child
from entrepot.cli.brief import Brief
from entrepot.cli.web_child import AGAIN, LOOK, Leaf, web_settings
from entrepot.config import Certs, Config, Listen, RegistryEntry, Store, Web


async def no_leaf() -> float | None:
    return None


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        listen=Listen(https=8443, dns=5353),
        certs=Certs(path=tmp_path / "ca"),
        store=Store(path=tmp_path / "store", size=5),
        registries=(RegistryEntry("registry.example:5000"),),
    )


def test_settings(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resolv.conf").write_text("search lan\n")
    monkeypatch.setattr(web_child, "RESOLV_CONF", tmp_path / "resolv.conf")
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    web = Web(allow=(ip_network("192.0.2.0/24"), "private"), hosts=("cache.example",), private_images="nobody")
    found = web_settings(replace(config, web=web), no_leaf)
    assert {"quay.io", "registry.example:5000"} <= set(found.registries)
    assert found.hosts == {"localhost", "box", "box.local", "box.lan", "cache.example"}
    assert found.allow != "any"
    assert ip_network("192.0.2.0/24") in found.allow
    assert ip_network("10.0.0.0/8") in found.allow
    assert (found.private_images, found.https_port, found.dns_port) == ("nobody", 8443, 5353)
    assert found.limits.size == 5
    assert found.owners(["https://quay.io"]) == {"https://quay.io": ["quay.io"]}


def test_without_a_resolv_conf(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_child, "RESOLV_CONF", tmp_path / "nothing")
    assert "localhost" in web_settings(replace(config, web=Web(allow=("any",))), no_leaf).hosts


async def test_the_leaf_is_looked_at_now_and_then(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[object, ...]] = []
    answers: list[float | OSError] = [OSError(), ssl.SSLError(), 100.0, 200.0]

    async def handshake(*args: object) -> float:
        looks.append(args)
        if isinstance(answer := answers.pop(0), OSError):
            raise answer
        return answer

    monkeypatch.setattr(web_child, "handshake", handshake)
    now = [0.0]
    leaf = Leaf(Brief(config, 0, (), ("127.0.0.1", 8443), "entrepot-1a"), lambda: now[0])
    assert await leaf() is None
    assert await leaf() is None
    now[0] += AGAIN
    assert await leaf() == 100.0
    now[0] += LOOK - 1
    assert await leaf() == 100.0
    now[0] += 1
    assert await leaf() == 200.0
    assert {look[:2] + look[3:] for look in looks} == {("127.0.0.1", 8443, config.certs.path)}
    assert [look[2] for look in looks] == ["quay.io", "quay.io", "ghcr.io", "quay.io"]


async def test_where_nobody_serves_there_is_no_leaf(config: Config) -> None:
    assert await Leaf(Brief(config, 0, (), None, "entrepot-1a"))() is None
    assert await Leaf(Brief(config, 0, (), ("127.0.0.1", 1), "entrepot-1a"))() is None  # and no CA either


def test_an_idle_page_is_small() -> None:
    """What encodes certificates, and the templates, are for when they are asked for."""
    program = "import sys, entrepot.cli.web_child; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "aiohttp" in loaded
    assert not loaded & {"cryptography", "OpenSSL", "jinja2", "mitmproxy"}
