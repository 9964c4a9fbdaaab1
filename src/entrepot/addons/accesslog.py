"""One line for each request that we answer: who asked for what, what became of it and why.

As `name=value` pairs for people and grep, and as fields of their own where the log is JSON. Nothing of a credential can
get in: of a request its path is taken, never its query or its other fields.
"""

import logging
from collections.abc import Mapping
from typing import Final

from entrepot.addons.exchange import Exchange
from entrepot.addons.pump import Sent
from entrepot.engine.messages import Answer
from entrepot.pairs import write as write_pairs
from entrepot.registry.digests import Digest
from entrepot.registry.routes import BlobRoute, ManifestRoute

type Entry = Mapping[str, object]

LOG: Final = logging.getLogger("entrepot.access")


def fields(
    exchange: Exchange, registry: str, answer: Answer, sent: Sent, *, asked: int, first: float, total: float
) -> Entry:
    """`asked`: exchanges with upstream that this request waited for; `first` and `total` in seconds."""
    route = exchange.route
    found: dict[str, object] = {
        "client": exchange.client.address,
        "method": exchange.head.method,
        "host": exchange.name,
        "path": route.path if route else "-",  # without the query, which may hold a credential
        "registry": registry or "-",
        "repository": getattr(route, "repository", None) or "-",
    }
    match route:
        case ManifestRoute(reference=Digest() as digest) | BlobRoute(digest=digest):
            found["digest"] = str(digest)
        case ManifestRoute(reference=tag):
            found |= {"tag": tag, "digest": answer.headers.get("docker-content-digest", "-")}
        case _:
            pass
    found |= {
        "status": answer.status,
        "verdict": answer.verdict,
        "admitted": answer.admitted or "-",
        "upstream": asked,
        "bytes": sent.body,
        "first_ms": round(first * 1000, 1),
        "ms": round(total * 1000, 1),
        "why": answer.why,
    }
    if sent.error:
        found["error"] = sent.error
    return found


def write(entry: Entry) -> None:
    """Into the log."""
    write_pairs(LOG, entry)
