"""Small images for a `FakeRegistry`."""

import json
from dataclasses import dataclass

from tests.fakes.registry import FakeRegistry

from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest


@dataclass(frozen=True)
class Image:
    """One image of two layers behind an index, as pushed."""

    index: Digest
    manifest: Digest
    config: Digest
    layers: tuple[Digest, ...]


def push_image(
    registry: FakeRegistry, repository: str, tag: str = "1", layers: tuple[bytes, ...] = (b"a" * 1000, b"b" * 70_000)
) -> Image:
    """Pushes config, layers, manifest and an index that is tagged."""
    config = registry.push_blob(repository, json.dumps({"architecture": "amd64", "tag": tag}).encode())
    pushed = tuple(registry.push_blob(repository, layer) for layer in layers)
    sizes = {digest: len(registry.blobs[repository, digest]) for digest in (config, *pushed)}
    manifest = registry.push_manifest(
        repository,
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_MANIFEST,
                "config": {"mediaType": mediatypes.OCI_CONFIG, "digest": str(config), "size": sizes[config]},
                "layers": [
                    {"mediaType": mediatypes.OCI_LAYER_GZIP, "digest": str(digest), "size": sizes[digest]}
                    for digest in pushed
                ],
            }
        ).encode(),
    )
    index = registry.push_manifest(
        repository,
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_INDEX,
                "manifests": [
                    {
                        "mediaType": mediatypes.OCI_MANIFEST,
                        "digest": str(manifest),
                        "size": len(registry.manifests[repository, manifest][0]),
                        "platform": {"architecture": "amd64", "os": "linux"},
                    }
                ],
            }
        ).encode(),
        mediatypes.OCI_INDEX,
        tag,
    )
    return Image(index, manifest, config, pushed)
