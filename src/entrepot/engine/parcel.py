"""What the fetching process is told of a request, and what it tells of a failure: as JSON, without loss.

Only the worker and the fetching process exchange these, over a socket that is for their owner only: the client's
credential is in them, because upstream must be asked in its name. What is asked in nobody's name or the box's says so
and carries no credential: the fetching process has its own.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Final

from entrepot.cache.interface import DigestMismatch, NoRoom, StoreError, TooLarge
from entrepot.engine.identity import Identity
from entrepot.engine.messages import Answer, PullRequest, Refused
from entrepot.engine.passes import NoPass
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest
from entrepot.registry.routes import BlobRoute
from entrepot.upstream import errors
from entrepot.upstream.fetch import Abandoned, TransferError, WrongBytes

type Document = Mapping[str, object]

NEEDED: Final = frozenset({"authorization", "user-agent", "accept"})
STORE: Final[Mapping[str, type[StoreError]]] = {"NoRoom": NoRoom, "TooLarge": TooLarge, "StoreError": StoreError}
UPSTREAM: Final[Mapping[str, type[errors.UpstreamError]]] = {
    kind.__name__: kind
    for kind in (
        errors.UpstreamError,
        errors.Unreachable,
        errors.Untrusted,
        errors.Down,
        errors.Slow,
        errors.TimedOut,
        errors.LoopDetected,
        errors.BadRedirect,
        errors.TooManyRedirects,
        errors.InvalidResponse,
        errors.TooLarge,
        NoPass,
    )
}


class InvalidParcel(EntrepotError):
    """Not what the other side writes."""


def pack(request: PullRequest) -> Document:
    """A request for a blob."""
    route = request.route
    if not isinstance(route, BlobRoute):
        raise InvalidParcel("only blobs are fetched")
    needed = NEEDED if request.asks == "client" else NEEDED - {"authorization"}
    return {
        "registry": request.registry.name,
        "repository": route.repository,
        "digest": str(route.digest),
        "query": route.query,
        "headers": [[name, value] for name, value in request.headers if name.lower() in needed],
        "client": request.client,
        "who": request.identity.credential,
        "anonymous": request.identity.anonymous,
        "own": request.identity.own,
        "asks": request.asks,
    }


def unpack(document: Document, registry: Callable[[str], Registry | None]) -> PullRequest:
    """The inverse; raises `InvalidParcel`. Of the identity what asking upstream needs."""
    match document:
        case {
            "registry": str(name),
            "repository": str(repository),
            "digest": str(digest),
            "query": str(query),
            "headers": list(fields),
            "client": str(client),
            "who": str(who),
            "anonymous": bool(anonymous),
            "own": bool(own),
            "asks": "client" | "nobody" | "box" as asks,
        } if (found := registry(name)) is not None:
            headers = Headers([(str(one[0]), str(one[1])) for one in fields if isinstance(one, list) and len(one) == 2])
            route = BlobRoute(repository, Digest.parse(digest), query=query)
            identity = Identity(name, who, anonymous=anonymous, own=own)
            return PullRequest("GET", found, route, headers, client, identity, asks=asks)
        case {"registry": str(name)}:
            raise InvalidParcel(f"no blob of {name!r} can be asked for")
        case _:
            raise InvalidParcel("no request")


def pack_failure(error: EntrepotError) -> Document:
    """What ended a transfer."""
    match error:
        case Refused(answer=answer):
            body = answer.body if isinstance(answer.body, bytes) else b""
            return {
                "kind": "Refused",
                "status": answer.status,
                "headers": [list(field) for field in answer.headers],
                "body": b64encode(body).decode(),
                "why": answer.why,
                "length": answer.length,
            }
        case NoRoom() | TooLarge():
            return {"kind": type(error).__name__, "text": str(error)}
        case StoreError() if type(error) is StoreError:
            return {"kind": "StoreError", "text": str(error)}
        case errors.UpstreamError():
            known = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in UPSTREAM)
            return {"kind": known, "host": error.host, "cause": error.cause}
        case Abandoned():
            return {"kind": "Abandoned", "text": str(error)}
        case DigestMismatch():  # this process has said so in its log, and tries again by itself
            return {"kind": "WrongBytes", "text": str(error)}
        case _:
            return {"kind": "TransferError", "text": str(error)}


def unpack_failure(document: Document) -> EntrepotError:
    """The inverse, as an error to be raised."""
    match document:
        case {"kind": "Refused", "status": int(status), "headers": list(fields), "body": str(body), **rest}:
            headers = Headers([(str(one[0]), str(one[1])) for one in fields if isinstance(one, list) and len(one) == 2])
            length = rest.get("length")
            why = str(rest.get("why", ""))
            known = length if isinstance(length, int) else None
            return Refused(Answer(status, headers, b64decode(body), "refused", why, length=known))
        case {"kind": str(kind), "text": str(text)} if kind in STORE:
            return STORE[kind](text)
        case {"kind": str(kind), "host": str(host), "cause": str(cause)} if kind in UPSTREAM:
            return UPSTREAM[kind](host, cause)
        case {"kind": "Abandoned", "text": str(text)}:
            return Abandoned(text)
        case {"kind": "WrongBytes", "text": str(text)}:
            return WrongBytes(text)
        case _:
            return TransferError(str(document.get("text", "the fetching process failed")))
