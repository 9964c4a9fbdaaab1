"""A store as the processes of a box leave it, and the pages over it."""

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.cache.filling import put

from entrepot.cache.embedded import open_blobs, open_records
from entrepot.cache.space import Limits
from entrepot.certs.authority import Authority
from entrepot.dns.settings import private_networks
from entrepot.registry.digests import Digest
from entrepot.web.pages import Pages
from entrepot.web.settings import WebSettings

REGISTRIES = ("docker.io", "ghcr.io", "quay.io")
LAYER = b"a layer" * 1000
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"

type Client = TestClient[web.Request, web.Application]


async def no_leaf() -> float | None:
    return None


@pytest.fixture
def settings(tmp_path: Path) -> WebSettings:
    Authority.create(tmp_path / "ca", ["quay.io", "ghcr.io"], now=datetime.now(UTC))
    return WebSettings(
        version="1.2.3",
        store=tmp_path / "store",
        certs=tmp_path / "ca",
        limits=Limits(size=10 << 30, min_free=1 << 20),
        registries=REGISTRIES,
        owners=lambda origins: {origin: ["quay.io"] if "quay.io" in origin else [] for origin in origins},
        leaf=no_leaf,
        allow=private_networks(),
        hosts=frozenset({"localhost", "box.example"}),
        private_images="loopback",
        dns_port=53,
        https_port=0,
    )


def write_counts(store: Path, name: str, **numbers: object) -> None:
    """As a process does."""
    run = store / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / f"{name}.json").write_text(json.dumps({"started": time.time() - 7200, "pid": os.getpid(), **numbers}))


async def furnish(store: Path) -> None:
    """Two public images, one of them for two platforms, and one that is not public."""
    blobs, records = open_blobs(store), open_records(store)
    try:
        layer = put(blobs, LAYER)
        config = put(blobs, b"{}")
        image = _image(config, layer)
        image_digest = Digest.of(image)
        index = _index(image_digest, Digest.of(b"not held"))
        await records.put_bytes(f"manifest/{image_digest}", IMAGE.encode() + b"\n" + image)
        await records.put_bytes(f"manifest/{Digest.of(index)}", INDEX.encode() + b"\n" + index)
        for repository, body, kind, public in (
            ("org/app", index, INDEX, True),
            ("org/tool", image, IMAGE, True),
            ("org/secret", image, IMAGE, False),
        ):
            await records.put(f"public/quay.io/{repository}", {"public": public, "at": time.time()})
            for accept in ("one", "other"):
                await records.put(
                    f"tag/quay.io/{repository}/1.0/{accept}",
                    {
                        "registry": "quay.io",
                        "repository": repository,
                        "tag": "1.0",
                        "digest": str(Digest.of(body)),
                        "media_type": kind,
                        "size": len(body),
                        "checked": time.time() - 90,
                        "moved": time.time() - 9000,
                    },
                )
    finally:
        blobs.close()
        await records.close()


def _descriptor(kind: str, digest: Digest, size: int, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": str(digest), "size": size, **more}


def _image(config: Digest, layer: Digest) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config, 2),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer, len(LAYER))],
        }
    ).encode()


def _index(amd64: Digest, arm64: Digest) -> bytes:
    manifests = [
        _descriptor(IMAGE, digest, 400, platform={"os": "linux", "architecture": name})
        for digest, name in ((amd64, "amd64"), (arm64, "arm64"))
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


type Open = Callable[..., Awaitable[Client]]


@pytest.fixture
async def open_page(settings: WebSettings) -> AsyncIterator[Open]:
    """Opens the pages, with changed settings if need be; asked from 127.0.0.1 under the name of that address."""
    opened: list[Client] = []

    async def opening(**changes: object) -> Client:
        pages = Pages(replace(settings, **changes))  # type: ignore[arg-type]
        application = pages.application()
        application.on_cleanup.append(lambda _: pages.close())
        client = TestClient(TestServer(application))
        await client.start_server()
        opened.append(client)
        return client

    yield opening
    for client in opened:
        await client.close()
