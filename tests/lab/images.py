"""Images made offline, from random bytes: every one is new, so a pull of it is cold whatever ran before.

`publish` puts an image straight into the storage folder of a docker-registry, which reads it from disk at each
request: no daemon, no push, and the digests are known before anybody pulls.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

type Style = Literal["oci", "oci-index", "docker", "docker-list"]

KIB, MIB = 1 << 10, 1 << 20
SMALL = (10 * KIB, 100 * KIB, 600 * KIB)
USUAL = (10 * KIB, 100 * KIB, 600 * KIB, 2 * MIB)

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
TYPES = {
    # style family -> index, manifest, config, layer
    "oci": (f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip"),
    "docker": (
        f"{DOCKER}.distribution.manifest.list.v2+json",
        f"{DOCKER}.distribution.manifest.v2+json",
        f"{DOCKER}.container.image.v1+json",
        f"{DOCKER}.image.rootfs.diff.tar.gzip",
    ),
}
STYLES: dict[str, Style] = {
    "docker.io": "docker-list",
    "quay.io": "oci-index",
    "ghcr.io": "oci-index",
    "registry.gitlab.com": "docker",
    "mcr.microsoft.com": "docker-list",
    "registry.example.com": "oci",
}
"""The style to test each registry with; between them, all."""
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
FOREIGN_ARCHITECTURE = "s390x"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_file(file: Path) -> str:
    """Whatever its name says."""
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


@dataclass(frozen=True)
class Blob:
    data: bytes
    digest: str

    @classmethod
    def of(cls, data: bytes) -> "Blob":
        return cls(data, digest_of(data))

    def descriptor(self, media_type: str, **more: object) -> dict[str, object]:
        return {"mediaType": media_type, "digest": self.digest, "size": len(self.data), **more}


@dataclass(frozen=True)
class Layer:
    blob: Blob
    diff_id: str  # digest of the tar inside


@dataclass(frozen=True)
class Image:
    """One image for this machine's platform, perhaps within an index that also has one for another platform."""

    layers: tuple[Layer, ...]
    config: Blob
    manifest: Blob
    manifest_type: str
    index: Blob | None = None
    index_type: str = ""
    foreign: "Image | None" = None

    @property
    def digest(self) -> str:
        """What a tag of this image points to."""
        return (self.index or self.manifest).digest

    @property
    def layer_digests(self) -> tuple[str, ...]:
        return tuple(layer.blob.digest for layer in self.layers)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Config and layers: what a client of this platform fetches as blobs."""
        return (self.config, *(layer.blob for layer in self.layers))


def layer(size: int) -> Layer:
    """A layer that holds one file of `size` random bytes. Stored, not compressed: random bytes would not shrink."""
    content = os.urandom(size)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(f"data-{digest_of(content)[7:19]}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(content))
    tar = raw.getvalue()
    return Layer(Blob.of(gzip.compress(tar, compresslevel=0, mtime=0)), digest_of(tar))


def build(layers: Sequence[int | Layer] = SMALL, style: Style = "oci-index") -> Image:
    """A new image. A number asks for a fresh layer of that many bytes; a `Layer` is shared with another image."""
    made = tuple(each if isinstance(each, Layer) else layer(each) for each in layers)
    index_type, *_ = types = TYPES[style.partition("-")[0]]
    image = _single(made, ARCHITECTURE, types)
    if "-" not in style:
        return image
    foreign = _single((layer(KIB),), FOREIGN_ARCHITECTURE, types)
    listed = [
        single.manifest.descriptor(single.manifest_type, platform={"architecture": architecture, "os": "linux"})
        for architecture, single in ((FOREIGN_ARCHITECTURE, foreign), (ARCHITECTURE, image))
    ]
    index = Blob.of(_json({"schemaVersion": 2, "mediaType": index_type, "manifests": listed}))
    return Image(image.layers, image.config, image.manifest, image.manifest_type, index, index_type, foreign)


def _single(layers: tuple[Layer, ...], architecture: str, types: tuple[str, str, str, str]) -> Image:
    _, manifest_type, config_type, layer_type = types
    created = "2026-01-02T03:04:05Z"
    config = Blob.of(
        _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": created,
                "config": {"Cmd": ["/nothing"], "Labels": {"serial": os.urandom(8).hex()}},
                "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
                "history": [{"created": created, "created_by": "entrepot lab"} for _ in layers],
            }
        )
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config.descriptor(config_type),
        "layers": [each.blob.descriptor(layer_type) for each in layers],
    }
    return Image(layers, config, Blob.of(_json(manifest)), manifest_type)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def publish(storage: Path, repository: str, tag: str, image: Image) -> None:
    """Put `image` into the docker-registry whose storage folder this is, as its own code would have written it."""
    root = storage / "docker/registry/v2"
    home = root / "repositories" / repository
    for each in (image, image.foreign):
        if each is not None:
            for blob in each.blobs:
                _store(root, blob)
                _link(home / "_layers", blob.digest)
            _manifest(root, home, each.manifest)
    if image.index is not None:
        _manifest(root, home, image.index)
    _link(home / f"_manifests/tags/{tag}/index", image.digest)
    _write(home / f"_manifests/tags/{tag}/current/link", image.digest.encode())


def read_tag(storage: Path, repository: str, tag: str) -> str | None:
    """The digest a tag points to, as the registry has it on disk; None if it has no such tag."""
    link = storage / "docker/registry/v2/repositories" / repository / f"_manifests/tags/{tag}/current/link"
    return link.read_text() if link.exists() else None


def read_blob(storage: Path, digest: str) -> bytes:
    return blob_path(storage, digest).read_bytes()


def blob_path(storage: Path, digest: str) -> Path:
    algorithm, hexadecimal = digest.split(":")
    return storage / f"docker/registry/v2/blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}/data"


def withdraw(storage: Path, image: Image) -> None:
    """Free the room its layers take in the registry; who asks for them now is told that there are none."""
    for blob in image.blobs:
        blob_path(storage, blob.digest).unlink()


def _manifest(root: Path, home: Path, blob: Blob) -> None:
    _store(root, blob)
    _link(home / "_manifests/revisions", blob.digest)


def _store(root: Path, blob: Blob) -> None:
    _write(blob_path(root.parents[2], blob.digest), blob.data)


def _link(directory: Path, digest: str) -> None:
    _write(directory / digest.replace(":", "/") / "link", digest.encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def docker_archive(image: Image, name: str) -> bytes:
    """What `docker save` would have written: for clients to load and push."""
    config = f"{image.config.digest[7:]}.json"
    tars = {f"{each.diff_id[7:]}/layer.tar": gzip.decompress(each.blob.data) for each in image.layers}
    listing = [{"Config": config, "RepoTags": [name], "Layers": list(tars)}]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, data in {config: image.config.data, **tars, "manifest.json": _json(listing)}.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()
