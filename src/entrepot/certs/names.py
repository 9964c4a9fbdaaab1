"""DNS names as certificates know them: what is one, and what lies within a subtree. Pure.

Leaves which names matter to the catalogue. Names here are A-labels; what is not is refused, not translated.
"""

import re
from collections.abc import Container, Iterable

from entrepot.certs.errors import NameNotPermitted

# Characters, RFC 1035 2.3.4 as text.
_MAX_NAME = 253
# Letters, digits, hyphens (RFC 5890 LDH); no underscore, for no registry has one and verifiers differ on it.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def checked(name: str) -> str:
    """`name` in lower case without its final dot; raises `NameNotPermitted` when it is no host name."""
    text = name.lower().removesuffix(".")
    if not _is_host(text):
        raise NameNotPermitted(f"{_quoted(name)} is no host name: no certificate is issued for it")
    return text


def covering(name: str, subtrees: Container[str]) -> str | None:
    """The longest of `subtrees` that `name` is or lies below (RFC 5280 4.2.1.10), if any; names as from `checked`."""
    while name:
        if name in subtrees:
            return name
        name = name.partition(".")[2]
    return None


def subtree(text: str) -> str | None:
    """A catalogue's entry as a DNS constraint: "*.gcr.io" is "gcr.io"; None when it can be none.

    Addresses are excluded altogether, a lone label may be a top-level domain, and an underscore in any constraint makes
    Java refuse the whole CA.
    """
    name = text.lower().removesuffix(".").removeprefix("*.")
    return name if _is_host(name) and "." in name else None


def minimal(texts: Iterable[str]) -> tuple[str, ...]:
    """The fewest subtrees that cover all of `texts` that can be covered, sorted: each handshake carries them."""
    found = {name for text in texts if (name := subtree(text)) is not None}
    return tuple(sorted(name for name in found if covering(name.partition(".")[2], found) is None))


def _is_host(text: str) -> bool:
    labels = text.split(".")
    # A last label of digits only would make it an IPv4 address to somebody (WHATWG URL, "ends in a number").
    return len(text) <= _MAX_NAME and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _quoted(text: str) -> str:
    """For messages: printable and short, whatever a client sent."""
    return repr(text if len(text) <= _MAX_NAME else text[:60] + "...")
