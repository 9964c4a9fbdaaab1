"""What is asked for: everything that clients ask of a repository, with the right answer to each request.

`stock` fills a registry with what several users have, apart and in common; it decides nothing about who may have it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.lab import images, world
from tests.lab.upstream import Upstream
from tests.lab.wire import Reply

ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}
UPSTREAM_IS_AWAY = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client, and how it is answered by whoever serves it."""

    name: str
    method: str
    rest: str  # below the repository
    headers: dict[str, str]
    status: int
    body: bytes = b""
    fields: dict[str, str] = field(default_factory=dict)
    is_list: bool = False

    def got(self, reply: Reply) -> str:
        """What the answer is: `served`; else its status, or `away`; or what is wrong with it."""
        if reply.status != self.status:
            return "away" if reply.status in UPSTREAM_IS_AWAY else str(reply.status)
        wrong = {name: reply.headers[name] for name, value in self.fields.items() if reply.headers[name] != value}
        if wrong or reply.body != self.body:
            return f"{reply.status} with {wrong} and {reply.body[:100]!r}"
        return "served"


def of_manifest(image: images.Image, name: str, reference: str) -> Iterator[Request]:
    """The whole of it, what it is, and whether it is still that."""
    data, digest, rest = image.manifest.data, image.manifest.digest, f"manifests/{reference}"
    head = {"Docker-Content-Digest": digest, "Content-Type": image.manifest_type, "Content-Length": str(len(data))}
    known = {**ANY_MANIFEST, "If-None-Match": f'"{digest}"'}
    yield Request(f"manifest by {name}", "GET", rest, ANY_MANIFEST, 200, data, head)
    yield Request(f"HEAD by {name}", "HEAD", rest, ANY_MANIFEST, 200, b"", head)
    yield Request(f"known by {name}", "GET", rest, known, 304)


def of_lists(repository: world.Repository, image: images.Image) -> Iterator[Request]:
    listed = json.dumps({"name": repository.path, "tags": [world.TAG]}, separators=(",", ":")).encode() + b"\n"
    rest = f"referrers/{image.digest}"
    yield Request("tags", "GET", "tags/list", {}, 200, listed, is_list=True)
    yield Request("referrers", "GET", rest, ANY_MANIFEST, 200, referrers(image), is_list=True)


def of_blob(blob: images.Blob) -> Iterator[Request]:
    """The whole of it, a part, and whether it is there."""
    size, rest = len(blob.data), f"blobs/{blob.digest}"
    head = {"Docker-Content-Digest": blob.digest, "Content-Length": str(size)}
    part = {"Content-Range": f"bytes 5-104/{size}", "Content-Length": "100"}
    yield Request("blob", "GET", rest, {}, 200, blob.data, head)
    yield Request("range", "GET", rest, {"Range": "bytes=5-104"}, 206, blob.data[5:105], part)
    yield Request("HEAD of blob", "HEAD", rest, {}, 200, b"", head)
    yield Request("known blob", "GET", rest, {"If-None-Match": f'"{blob.digest}"'}, 304)


def referrers(image: images.Image) -> bytes:
    """An index that lists nothing, and that no other image has."""
    said = {
        "schemaVersion": 2,
        "mediaType": images.TYPES["oci"][0],
        "manifests": [],
        "annotations": {"of": image.digest},
    }
    return json.dumps(said).encode()


@dataclass(frozen=True, slots=True)
class Content:
    """Something in a repository, and all that is asked about it."""

    repository: world.Repository
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is at one registry."""

    registry: world.Registry
    contents: dict[str, Content]  # by column of the table
    naming: Content  # the manifest of B's that names what only A has

    @property
    def repositories(self) -> dict[str, world.Repository]:
        """By whose they are."""
        return {name: self.contents[name].repository for name in ("public", "A's", "B's")}


def stock(upstream: Upstream, registry: world.Registry) -> Stock:
    """New repositories of everybody, of Alice (A) and of Bob (B).

    Both have a layer in common. A manifest of Bob's names one of Alice's, which the registry does not have there.
    """
    both = images.layer(20 * images.KIB)
    free, ours, theirs = (images.build([5 * images.KIB, *more], "oci") for more in ([], [both], [both]))
    alices = ours.layers[0]
    public = upstream.publish(registry, free)
    a_s, b_s = (
        upstream.publish(registry, image, private=True, owner=owner)
        for image, owner in ((ours, world.ALICE), (theirs, world.BOB))
    )
    naming = images.build([alices], "oci")
    upstream.move(b_s, naming, "naming")
    upstream.untag(b_s, "naming")
    upstream.unlink(b_s, alices.blob.digest)
    contents = {
        f"both,in-{name}": Content(repository, tuple(of_blob(both.blob)))
        for name, repository in (("A's", a_s), ("B's", b_s))
    }
    contents["named-in-B's"] = Content(b_s, tuple(of_blob(alices.blob)))
    for name, repository, image in (("public", public, free), ("A's", a_s, ours), ("B's", b_s, theirs)):
        upstream.refer(repository, image.digest, referrers(image))
        manifests = (*of_manifest(image, "tag", world.TAG), *of_manifest(image, "digest", image.digest))
        about = (*manifests, *of_lists(repository, image), *of_blob(image.layers[0].blob))
        contents[name] = Content(repository, about)
    return Stock(registry, contents, Content(b_s, tuple(of_manifest(naming, "digest", naming.digest))))
