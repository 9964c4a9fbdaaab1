"""An image to measure with: one large layer of random bytes and a manifest of the usual size.

Decides what it looks like. The same bytes go to a registry (`push`) and to a tree of plain files (`lay_out`).
"""

import hashlib
import http.client
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

REPOSITORY = "bench/app"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
AUTHORIZATION = "Basic YmVuY2g6YmVuY2g="
SMALL_LAYERS = 7  # beside the large one: makes a manifest of about 1.5 kB
PIECE = 8 << 20  # bytes made at a time


@dataclass(frozen=True, slots=True)
class Image:
    """Where it is and what it is called."""

    blob: Path
    size: int  # bytes
    digest: str
    small: dict[str, bytes]  # config and small layers, by digest
    manifest: bytes
    manifest_digest: str

    @property
    def blob_path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"

    @property
    def by_digest(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{self.manifest_digest}"

    @property
    def by_tag(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{TAG}"


def make(directory: Path, mebibytes: int) -> Image:
    """Writes the large layer; the rest is in memory."""
    path = directory / "blob"
    digest = _random_file(path, mebibytes << 20)
    small = {_digest(data): data for data in (b"layer %d" % n * 50 for n in range(SMALL_LAYERS))}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    layers = [(digest, mebibytes << 20), *((name, len(data)) for name, data in small.items())]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor("config.v1+json", _digest(config), len(config)),
            "layers": [_descriptor("layer.v1.tar+gzip", name, size) for name, size in layers],
        }
    ).encode()
    return Image(path, mebibytes << 20, digest, {**small, _digest(config): config}, manifest, _digest(manifest))


def push(image: Image, port: int) -> None:
    """Into a registry on loopback, over plain HTTP, as the distribution spec has it."""
    for digest, data in image.small.items():
        _upload(port, digest, data)
    _upload(port, image.digest, image.blob)
    for reference in (image.manifest_digest, TAG):
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        _call(port, "PUT", path, image.manifest, {"Content-Type": MANIFEST_TYPE})


def lay_out(image: Image, root: Path) -> None:
    """As files under the paths of the registry API, for a server of plain files; the large layer is a hard link."""
    blobs, manifests = (root / "v2" / REPOSITORY / kind for kind in ("blobs", "manifests"))
    for directory in (blobs, manifests):
        directory.mkdir(parents=True)
    os.link(image.blob, blobs / image.digest)
    for digest, data in image.small.items():
        (blobs / digest).write_bytes(data)
    for reference in (image.manifest_digest, TAG):
        (manifests / reference).write_bytes(image.manifest)


def _random_file(path: Path, size: int) -> str:
    """A key stream: as random as can be for what we do, and faster than the kernel's. Returns the digest."""
    stream = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(os.urandom(16))).encryptor()
    zeros, hasher = bytes(min(PIECE, size)), hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, PIECE):
            piece = stream.update(zeros[: size - at])
            hasher.update(piece)
            file.write(piece)
    path.chmod(0o644)
    return f"sha256:{hasher.hexdigest()}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}


def _upload(port: int, digest: str, content: bytes | Path) -> None:
    location = urlsplit(_call(port, "POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"", {}))
    target = f"{location.path}?{location.query}&digest={digest}"
    _call(port, "PUT", target, content, {"Content-Type": "application/octet-stream"})


def _call(port: int, method: str, target: str, content: bytes | Path, fields: dict[str, str]) -> str:
    """Returns where the registry points to. Raises RuntimeError when it refuses."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    fields = {**fields, "Authorization": AUTHORIZATION, "Content-Length": str(size)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120, blocksize=1 << 20)
    try:
        if isinstance(content, bytes):
            connection.request(method, target, content, fields)
        else:
            with content.open("rb") as file:
                connection.request(method, target, file, fields)
        response = connection.getresponse()
        body = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {target}: {response.status} {body[:300]!r}")
        return response.headers.get("Location", "")
    finally:
        connection.close()
