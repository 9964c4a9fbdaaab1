"""Header fields between two connections: which go on, and the mark by which we know ourselves.

Decides what of a request may be sent upstream (RFC 9110 section 7.6) and how `Via` is written and read. Leaves
to the engine which fields of an answer reach a client: `end_to_end` is there for it.
"""

import re
from collections.abc import Iterable
from typing import Final

from entrepot.headers import Headers

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields of one connection: RFC 9110 section 7.6.1, and those of the proxy in between (section 11.7)."""

_REWRITTEN: Final = frozenset({"host", "content-length", "expect", "accept-encoding", "via"})
"""Fields of a request that the client writes itself. `Expect` is answered by whoever took the body in."""

_BREAKS: Final = re.compile(r"[\r\n\0]")
_COMMENT: Final = re.compile(r"\((?:[^()\\]|\\.)*\)")


def end_to_end(headers: Headers) -> Headers:
    """Less the fields of one connection, those that `Connection` names included."""
    named = {token.strip().lower() for value in headers.get_all("connection") for token in value.split(",")}
    return headers.without(*(HOP_BY_HOP | named))


def outgoing(headers: Headers, *, via: str, user_agent: str | None) -> list[tuple[str, str]]:
    """The fields of a request as they go upstream, in order; `Host` and the length are the connection's to write.

    `user_agent` is used when the asking client gave none (None: then none is sent).
    Raises ValueError, which names the field, for a value with a line break: one request must stay one.
    """
    pairs = [pair for pair in end_to_end(headers) if pair[0].lower() not in _REWRITTEN]
    for name, value in pairs:
        if _BREAKS.search(name) or _BREAKS.search(value):
            raise ValueError(f"header field {name!r} holds a line break")
    if user_agent is not None and "user-agent" not in headers:
        pairs.append(("User-Agent", user_agent))
    pairs.append(("Accept-Encoding", "identity"))
    pairs.append(("Via", ", ".join([*headers.get_all("via"), via])))
    # aiohttp keeps the lines of a repeated field only when they are spelt alike.
    spelling: dict[str, str] = {}
    return [(spelling.setdefault(name.lower(), name), value) for name, value in pairs]


def is_own(via_values: Iterable[str], pseudonym: str) -> bool:
    """Whether a request with these `Via` fields has been through the proxy of that name already.

    An entry is `[protocol/]version received-by [comment]` (RFC 9110 section 7.6.3); names compare without case.
    """
    wanted = pseudonym.lower()
    for value in via_values:
        for entry in _COMMENT.sub("", value).split(","):
            words = entry.split()
            if len(words) >= 2 and words[1].lower() == wanted:
                return True
    return False
