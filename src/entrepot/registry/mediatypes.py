"""The media types of manifests and blobs in use, and what an `Accept` header asks for.

Says which types are manifests and which of them are lists of manifests. Which type a registry answers with
is its own business: `Content-Type` is part of the data and is kept as it came.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
# Withdrawn before OCI 1.1 was out; ORAS and buildx wrote it for a year and registries still hold it.
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_PLUGIN_CONFIG: Final = "application/vnd.docker.plugin.v1+json"
HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"

OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_FOREIGN_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_LAYER_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
HELM_CHART: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

ANY: Final = "*/*"

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
SCHEMA1_TYPES: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
MANIFEST_TYPES: Final = INDEX_TYPES | SCHEMA1_TYPES | {OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT}
IMAGE_CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
# The licence of these layers forbids pushing them: a registry may lack them, and `urls` say who has them.
FOREIGN_LAYER_TYPES: Final = frozenset(
    {
        OCI_FOREIGN_LAYER,
        OCI_FOREIGN_LAYER_GZIP,
        OCI_FOREIGN_LAYER_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
    }
)


def essence(content_type: str) -> str:
    """The media type without parameters, in lower case: what may be compared."""
    return content_type.partition(";")[0].strip().lower()


def is_manifest(media_type: str) -> bool:
    """Whether this is a type of manifest, indexes included; parameters and case do not matter."""
    return media_type in MANIFEST_TYPES or essence(media_type) in MANIFEST_TYPES


def is_index(media_type: str) -> bool:
    """Whether this is a type of manifest that lists manifests, one for each platform."""
    return media_type in INDEX_TYPES or essence(media_type) in INDEX_TYPES


def accept_class(accept_values: Sequence[str]) -> str:
    """The set of manifest types asked for, in canonical form; equal for requests that mean the same.

    A tag may have an answer for each such set, so it is part of the key under which the answer is kept.
    `accept_values` are the values of all `Accept` lines. docker sends six lines in random order, others one
    line; weights are used by none but to refuse (`q=0`), so order and weight are dropped. Types that are
    no manifest are dropped too. The result is itself a valid `Accept` value, empty if nothing was asked for:
    registries treat a missing `Accept` unlike `*/*`.
    """
    return _accept_class(tuple(accept_values))


@lru_cache(maxsize=512)  # clients are few, and send the same at every request
def _accept_class(accept_values: tuple[str, ...]) -> str:
    wanted: set[str] = set()
    for value in accept_values:
        for item in value.split(","):
            name, semicolon, parameters = item.partition(";")
            media_type = name.strip().lower()
            if media_type == "application/*":
                media_type = ANY
            if media_type not in MANIFEST_TYPES and media_type != ANY:
                continue
            if not semicolon or not _refused(parameters):
                wanted.add(media_type)
    return ", ".join(sorted(wanted))


def _refused(parameters: str) -> bool:
    """Whether the weight among the parameters is 0, which RFC 9110 12.4.2 defines as "not acceptable"."""
    for parameter in parameters.split(";"):
        name, _, weight = parameter.partition("=")
        if name.strip().lower() == "q":
            return weight.strip() in {"0", "0.", "0.0", "0.00", "0.000"}
    return False


def accepts(accept_values: Sequence[str], media_type: str) -> bool:
    """Whether who sent these `Accept` lines takes a manifest of this type. Without any, whatever comes."""
    if not accept_values:
        return True
    wanted = accept_class(accept_values).split(", ")
    return ANY in wanted or essence(media_type) in wanted
