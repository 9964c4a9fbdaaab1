"""The challenges of a `WWW-Authenticate` header: RFC 9110 section 11.3 to 11.6, as registries really write them.

Takes a header apart and puts a challenge together again. Whether a realm may be asked for a token, and with
whose credential, is decided elsewhere: a realm is the registry's word, not a fact.

Read more leniently than the grammar has it, because each of these is in the field: values without quotes
(also of `scope`, with the comma of `pull,push` in them), white space around `=`, parameters without a comma
between them, a closing quote that never comes, `Basic` without a realm.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from entrepot.errors import EntrepotError

# Possessive quantifiers (++, *+) give nothing back, so a hostile header costs one pass.
_GAP = re.compile(r"[ \t,]*+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_EQUALS = re.compile(r"[ \t]*+=[ \t]*+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]++=*+(?=[ \t]*+(?:,|\Z))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)', re.DOTALL)
_BARE = re.compile(r'[^ \t,"]*+')
_BARE_SCOPE = re.compile(r'[^ \t,"]*+(?:,(?:pull|push|delete|\*)(?=[ \t,]|\Z))*+')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class InvalidChallenge(EntrepotError, ValueError):
    """The header is no list of challenges."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers."""

    scheme: str  # lower case
    params: Mapping[str, str] = field(default_factory=dict, hash=False)  # names in lower case
    token68: str | None = None  # instead of parameters, as Negotiate has it

    def __str__(self) -> str:
        scheme = self.scheme.capitalize()
        if self.token68 is not None:
            return f"{scheme} {self.token68}"
        quoted = (f'{name}="{_escape(value)}"' for name, value in self.params.items())
        return f"{scheme} {','.join(quoted)}".rstrip()


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """All challenges of all `WWW-Authenticate` lines, in order; raises `InvalidChallenge`."""
    return [challenge for value in values for challenge in _parse_line(value)]


def _parse_line(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _skip(_GAP, value, 0)
    while at < len(value):
        challenge, at = _parse_one(value, at)
        found.append(challenge)
    return found


def _parse_one(value: str, at: int) -> tuple[Challenge, int]:
    """One challenge, and where the next one begins."""
    scheme = _TOKEN.match(value, at)
    if scheme is None or _EQUALS.match(value, scheme.end()) is not None:
        raise InvalidChallenge(f"not a challenge: {value[:200]!r}; a scheme is missing before {value[at : at + 20]!r}")
    at = scheme.end()
    name = scheme[0].lower()
    if value[at : at + 1] not in {"", " ", "\t", ","}:
        raise InvalidChallenge(f"not a challenge: {value[:200]!r}; {value[at : at + 20]!r} cannot follow a scheme")
    after = _skip(_GAP, value, at)
    # A comma right after the scheme ends it; only white space may stand before a token68.
    if "," not in value[at:after] and (token68 := _TOKEN68.match(value, after)) is not None:
        # "Basic, Negotiate" never gets here; "Basic Negotiate" is read as the grammar has it.
        return Challenge(name, {}, token68[0]), _skip(_GAP, value, token68.end())
    params, at = _parse_params(value, after)
    return Challenge(name, params), at


def _parse_params(value: str, at: int) -> tuple[dict[str, str], int]:
    """The parameters up to the next scheme: a token that no equals sign follows."""
    params: dict[str, str] = {}
    while (name := _TOKEN.match(value, at)) is not None:
        equals = _EQUALS.match(value, name.end())
        if equals is None:
            break
        key = name[0].lower()
        text, at = _parse_value(value, equals.end(), key)
        params.setdefault(key, text)  # 11.2: a name occurs once; which one is meant is anyone's guess
        at = _skip(_GAP, value, at)
    return params, at


def _parse_value(value: str, at: int, key: str) -> tuple[str, int]:
    quoted = _QUOTED.match(value, at)
    if quoted is not None:
        text = quoted[1]
        return (_ESCAPE.sub(r"\1", text) if "\\" in text else text), quoted.end()
    bare = (_BARE_SCOPE if key == "scope" else _BARE).match(value, at)
    return (bare[0], bare.end()) if bare is not None else ("", at)


def _skip(pattern: re.Pattern[str], value: str, at: int) -> int:
    found = pattern.match(value, at)
    return at if found is None else found.end()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
