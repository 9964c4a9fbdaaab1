"""What may be pulled at all: `allow` and `deny` of the configuration (DESIGN rule 7).

1. Denied goes before allowed. Where anything is listed under `allow`, the rest is denied.
2. A pattern with a tag means pulls of these tags, of what they were (`TAG.20261124`), and of manifests by digest that
   were seen under no other tags. A digest that no tag is known for is denied by repository patterns only.
3. A pattern without a tag means the repository: tags, digests, blobs, lists.
4. Blobs and lists have no tag: they are denied with their repository, and allowed with any tag of it.

Pushes, and what is held, are no concern of this: a rule that is taken away gives everything back.
"""

from collections.abc import Callable
from typing import Final

from entrepot.engine.dated import dated
from entrepot.engine.history import History
from entrepot.engine.messages import Answer
from entrepot.engine.patterns import first_fit, fits_repository, tag_part
from entrepot.engine.policy import Policy
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute, Route

FORBIDDEN: Final = 403

type TagsOf = Callable[[str, str, str], tuple[str, ...]]
"""Registry, repository, digest: the tags it was seen under."""


def refusal(policy: Policy, history: History, registry: Registry, route: Route) -> Answer | None:
    """What a client gets instead; None if it may go on."""
    denied, allowed = policy.denied(registry), policy.allowed(registry)
    repository = getattr(route, "repository", None)
    if not (denied or allowed) or not isinstance(repository, str):
        return None
    why = reason(denied, allowed, registry.name, repository, _reference(route), history.tags_of)
    if not why:
        return None
    body = oci_errors.error_body(oci_errors.DENIED, f"entrepot: {why}")
    return Answer(FORBIDDEN, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body, "denied", why)


def reason(
    denied: tuple[str, ...],
    allowed: tuple[str, ...],
    registry: str,
    repository: str,
    reference: Digest | str | None,
    tags_of: TagsOf,
) -> str:
    """Why it is denied; "" if it is not. `reference`: of a manifest; None for blobs and lists."""
    for pattern in denied:
        if not tag_part(pattern) and fits_repository(pattern, registry, repository):
            return f'{registry}/{repository} is denied here by "{pattern}"'
    match reference:
        case str():
            tags = _names(reference)
        case Digest():
            tags = tags_of(registry, repository, str(reference))
        case None:
            tags = ()
    found = [first_fit(denied, registry, repository, tag) for tag in tags]
    if isinstance(reference, Digest):
        if found and all(found):
            return f'{tags[0]} of {registry}/{repository}, which this is, is denied here by "{found[0]}"'
    elif hit := next(filter(None, found), ""):
        return f'{registry}/{repository}:{reference} is denied here by "{hit}"'
    if not allowed:
        return ""
    if isinstance(reference, str):
        fine = any(first_fit(allowed, registry, repository, tag) for tag in tags)
    else:
        fine = any(fits_repository(pattern, registry, repository) for pattern in allowed)
    return "" if fine else f"{registry}/{repository} is not among what is allowed here"


def _names(tag: str) -> tuple[str, ...]:
    """The tag, and what it names if it is the name of what a tag was."""
    return (tag,) if (named := dated(tag)) is None else (tag, named.tag)


def _reference(route: Route) -> Digest | str | None:
    return route.reference if isinstance(route, ManifestRoute) else None
