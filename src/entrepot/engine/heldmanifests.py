"""Manifests that are held: in the records, as they came, and as they are given to clients.

Decides nothing: who may have one, and which one a tag means, is `manifests`'.
"""

from entrepot.cache.interface import Records
from entrepot.engine.admission import Admission
from entrepot.engine.fields import STALE, matches_etag, of_content
from entrepot.engine.messages import Answer, PullRequest, Verdict
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor, InvalidManifest, parse_manifest


def manifest_key(digest: Digest) -> str:
    """Where it is in the records."""
    return f"manifest/{digest}"


def held_manifest(records: Records, digest: Digest) -> tuple[bytes, str] | None:
    """Bytes and media type of a manifest in the store."""
    if (value := records.get_bytes(manifest_key(digest))) is None:
        return None
    media_type, _, body = value.partition(b"\n")
    return body, media_type.decode()


async def keep_manifest(records: Records, digest: Digest, body: bytes, media_type: str) -> None:
    """Of bytes that have been verified. Raises `StoreError`."""
    await records.put_bytes(manifest_key(digest), media_type.encode() + b"\n" + body)


async def note_belonging(
    admission: Admission, request: PullRequest, repository: str, digest: Digest, body: bytes, media_type: str
) -> None:
    """Records that the repository has this manifest and all it refers to."""
    if admission.is_followed(request, repository, digest):
        return
    itself = Descriptor(media_type, digest, len(body))
    try:
        info = parse_manifest(body, media_type)
    except InvalidManifest:
        children: tuple[Descriptor, ...] = ()  # an artifact of a kind we do not know: it is served all the same
    else:
        children = (*info.blobs, *info.manifests)
    await admission.manifest(request, repository, itself, children)


def reply(
    request: PullRequest,
    digest: Digest,
    body: bytes,
    media_type: str,
    verdict: Verdict,
    why: str,
    *,
    age: float | None = None,
    admitted: str = "checked",
) -> Answer:
    """A manifest, as the answer to a request."""
    details = {"stale": "; detail=stale", "held": "; detail=held"}
    status = "fwd=miss; stored" if verdict == "miss" else f"hit{details.get(verdict, '')}"
    fields = of_content(digest, media_type, status=status, age=age)
    if verdict == "stale":
        fields.extend(STALE)
    if matches_etag(request.headers, digest):
        return Answer(304, Headers(fields), verdict=verdict, why=why, admitted=admitted)
    return Answer(200, Headers(fields), body, verdict, why, admitted, length=len(body))
