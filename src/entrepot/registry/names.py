"""Repository names, tags and image references, as the OCI distribution specification and docker spell them.

Checks what is well formed; whether a repository exists, and which registry a host belongs to, is decided
elsewhere. Grammar: distribution-spec, "Pulling manifests"; docker's familiar names: github.com/distribution/
reference, "normalize".
"""

import re
from dataclasses import dataclass

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest, InvalidDigest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
# Characters. The specification only says that many clients have this limit; docker and podman do, for the
# repository alone. A longer name cannot be pulled by them.
MAX_REPOSITORY = 255

# Separators and letters are disjoint sets, so there is one way to match and nothing to back-track into.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")
# Names that all mean Docker Hub; its images are recorded under the first spelling only.
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class InvalidName(EntrepotError, ValueError):
    """The text is no repository name, tag or image reference."""


def is_repository(text: str) -> bool:
    """Whether `text` is a repository name: lower-case components, parted by single slashes."""
    return len(text) <= MAX_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is a tag."""
    return _TAG.fullmatch(text) is not None


def check_repository(text: str) -> str:
    """Gives `text` back if it is a repository name; raises `InvalidName`."""
    if len(text) > MAX_REPOSITORY:
        raise InvalidName(
            f"repository name too long: {text[:40]!r}... has {len(text)} characters, {MAX_REPOSITORY} are allowed"
        )
    if _REPOSITORY.fullmatch(text) is None:
        raise InvalidName(
            f"not a repository name: {text!r}; use lower-case letters and digits, with . _ or - between them, "
            "and / between parts, as in library/alpine"
        )
    return text


def check_tag(text: str) -> str:
    """Gives `text` back if it is a tag; raises `InvalidName`."""
    if _TAG.fullmatch(text) is None:
        raise InvalidName(
            f"not a tag: {text[:200]!r}; use up to 128 letters, digits, _ . and -, not beginning with . or -"
        )
    return text


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A full image name. At least one of `tag` and `digest` is set when it comes out of `parse`."""

    registry: str  # host, with a port if it has one; "docker.io" for Docker Hub
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Reads a name as docker does: `alpine` is `docker.io/library/alpine:latest`. Raises `InvalidName`.

        A digest alone leaves the tag None: such a name points at one manifest and at no tag.
        """
        if "://" in text:
            raise InvalidName(f"not an image name: {text[:200]!r}; leave out the {text.partition('://')[0][:20]}://")
        name, at, digest_text = text.partition("@")
        digest = _digest(digest_text, text) if at else None
        # A colon after the last slash parts the tag; one before it is a port.
        slash = name.rfind("/")
        colon = name.find(":", slash + 1)
        tag = check_tag(name[colon + 1 :]) if colon >= 0 else None
        registry, repository = _split_host(name[:colon] if colon >= 0 else name)
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(registry, check_repository(repository), tag, digest)

    @property
    def reference(self) -> Digest | str:
        """What to ask a registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def _digest(digest_text: str, whole: str) -> Digest:
    try:
        return Digest.parse(digest_text)
    except InvalidDigest as problem:
        raise InvalidName(f"not an image name: {whole[:200]!r}; {problem}") from None


def _split_host(name: str) -> tuple[str, str]:
    """Registry and repository. The first component is a host only if it looks like one, as docker has it."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first.lower() == "localhost"):
        first, rest = DEFAULT_REGISTRY, name
    host = _check_host(first)
    if host in _HUB:
        return DEFAULT_REGISTRY, rest if "/" in rest else f"library/{rest}"
    return host, rest


def _check_host(text: str) -> str:
    host = text.lower()
    found = _HOST.fullmatch(host)
    # Lower-casing can turn other alphabets into ASCII (the Kelvin sign becomes k), so that is asked too.
    if not text.isascii() or found is None or (found[1] is not None and not 0 < int(found[1]) < 65536):
        raise InvalidName(f"not a registry host: {text[:200]!r}; write it as in quay.io or registry.example:5000")
    return host
