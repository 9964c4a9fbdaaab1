"""Header fields: what a client's request passes on to upstream, and what an answer carries.

A hit must look like the registry's own answer (FACTS: the minimum contract of a hit); a relayed answer loses only
what belongs to the connection.
"""

from typing import Final

from entrepot.engine.owntokens import holds_own_token
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.upstream.fields import end_to_end

NOT_RELAYED: Final = (
    "content-length",  # framing is made anew
    "alt-svc",  # would invite the client to another port or protocol, past us
    "strict-transport-security",
    "date",  # set anew when the answer is sent
)
PASSED_ON: Final = ("authorization", "user-agent", "accept")
BLOB_TYPE: Final = "application/octet-stream"
API_VERSION: Final = ("Docker-Distribution-Api-Version", "registry/2.0")
STALE: Final = (("Warning", '111 entrepot "Revalidation Failed"'), ("X-Entrepot", "stale"))
"""What marks an answer that could not be checked with upstream (RFC 7234 5.5.2, and for people who look)."""
FOR_EVER: Final = "max-age=31536000"  # seconds: a digest never changes


def to_upstream(headers: Headers, *more: tuple[str, str]) -> Headers:
    """The fields of a client's request that upstream gets: who asks, for what; all else is ours to say.

    One credential only, the one by which we know the client. A token of ours is none: upstream challenges anew.
    """
    passed = Headers((name, value) for name, value in headers if name.lower() in PASSED_ON)
    if (credential := passed.get("authorization")) is not None:
        ours = holds_own_token(credential)
        passed = passed.without("authorization") if ours else passed.with_("Authorization", credential)
    return Headers([*passed, *more])


def relayed(headers: Headers) -> Headers:
    """Upstream's fields as a client may see them."""
    return end_to_end(headers).without(*NOT_RELAYED)


def of_content(digest: Digest, content_type: str, *, status: str, age: float | None = None) -> list[tuple[str, str]]:
    """The fields of a manifest or blob that we answer for; `status` is the parameter list of RFC 9211."""
    fields = [
        ("Content-Type", content_type),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        API_VERSION,
        ("Cache-Status", f"entrepot; {status}"),
    ]
    if age is not None:
        fields.append(("Age", str(max(0, int(age)))))
    return fields


def matches_etag(headers: Headers, digest: Digest) -> bool:
    """Whether `If-None-Match` (RFC 9110 13.1.2) names this digest."""
    tag = f'"{digest}"'
    for value in headers.get_all("if-none-match"):
        for item in value.split(","):
            if item.strip().removeprefix("W/") in {tag, "*"}:
                return True
    return False
