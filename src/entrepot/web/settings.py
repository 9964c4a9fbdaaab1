"""All the web process is told, by value."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from entrepot.cache.space import Limits
from entrepot.web.guard import Networks

type Audience = Literal["loopback", "allowed", "nobody"]


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Replaced as a whole when the configuration changes."""

    version: str
    store: Path
    certs: Path
    limits: Limits
    registries: tuple[str, ...]
    """Those with a name of their own: what metrics are labelled with. All others are "other"."""
    owners: Callable[[Iterable[str]], Mapping[str, list[str]]]
    """Whose API or token service is at each of the origins."""
    leaf: Callable[[], Awaitable[float | None]]
    """Until when (epoch seconds) the certificate counts that a client would be shown now; None = there is none."""
    allow: Networks
    """Who may look at all."""
    hosts: frozenset[str]
    """Names this box goes by, besides its addresses."""
    private_images: Audience
    """Who is shown the names of images that are not known to be public."""
    dns_port: int
    https_port: int
