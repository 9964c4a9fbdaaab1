"""The kinds of values a key can have: how one is read from TOML or an environment variable, and written back.

A `Kind` knows nothing of where its value stands. `parse` takes what `tomllib` yields and raises `ValueError` with what
is allowed; `render` gives a TOML value back, and `parse(render(value)) == value` for every value it can give. Relative
paths are left alone: the loader knows what they are relative to.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from entrepot.config import values

_PATTERN: Final = re.compile(r"[A-Za-z0-9._:/*-]+", re.ASCII)


class ItemError(ValueError):
    """One item of a list is wrong; `item` is the culprit, so that a message can quote it alone."""

    def __init__(self, item: object, reason: str) -> None:
        super().__init__(reason)
        self.item = item


@dataclass(frozen=True, slots=True)
class Kind[T]:
    """How values of one kind are read and written."""

    parse: Callable[[object], T]
    """From a TOML value; raises `ValueError` saying what is allowed."""
    render: Callable[[T], object]
    """To a TOML value."""
    from_text: Callable[[str], object] = lambda text: text
    """From the text of an environment variable to the TOML value it stands for."""


def setting[T](default: T, kind: Kind[T]) -> T:
    """A dataclass field that carries its kind, so that a key is declared in one place."""
    return field(default=default, metadata={"kind": kind})


def optional[T](kind: Kind[T]) -> T | None:
    """A field like `setting` that is None where the key is absent."""
    return field(default=None, metadata={"kind": kind})


def quoted(value: object) -> str:
    """`value` as a message shows it: one line, at most 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _same(value: object) -> object:
    return value


def text_kind[T](parse: Callable[[str], T], render: Callable[[T], object] = str) -> Kind[T]:
    """A kind written as a string."""

    def parse_text(raw: object) -> T:
        if isinstance(raw, str):
            return parse(raw)
        # A number without quotes is the usual slip. 0 is clear without a unit; for others the parser knows what is
        # allowed ("30" has no unit), and where it would take the text, only the quotes are missing.
        value = parse(str(raw))
        if type(raw) is int and raw == 0:
            return value
        raise ValueError("must be in quotes")

    return Kind(parse_text, render)


def list_kind[T](item: Kind[T]) -> Kind[tuple[T, ...]]:
    """A list of `item`, without doubles; in an environment variable, comma separated."""

    def parse(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list):
            raise ValueError("must be a list, in square brackets")
        parsed: dict[T, None] = {}
        for part in raw:
            try:
                parsed[item.parse(part)] = None
            except ValueError as refusal:
                raise ItemError(part, str(refusal)) from None
        return tuple(parsed)

    def render(value: tuple[T, ...]) -> object:
        return [item.render(part) for part in value]

    def from_text(text: str) -> object:
        return [item.from_text(part.strip()) for part in text.split(",") if part.strip()]

    return Kind(parse, render, from_text)


def nonempty[T](kind: Kind[tuple[T, ...]]) -> Kind[tuple[T, ...]]:
    """A list that must have an item."""

    def parse(raw: object) -> tuple[T, ...]:
        if not (parsed := kind.parse(raw)):
            raise ValueError("must have at least one entry")
        return parsed

    return Kind(parse, kind.render, kind.from_text)


def int_kind(low: int, high: int, allowed: str) -> Kind[int]:
    """A whole number from `low` to `high`."""

    def parse(raw: object) -> int:
        # bool is an int to Python, not to whoever wrote `https = true`.
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError(f"must be {allowed}")
        return raw

    def from_text(text: str) -> object:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text

    return Kind(parse, _same, from_text)


def bool_kind() -> Kind[bool]:
    """True or false."""

    def parse(raw: object) -> bool:
        if not isinstance(raw, bool):
            raise ValueError("must be true or false")
        return raw

    return Kind(parse, _same, lambda text: {"true": True, "false": False}.get(text.lower(), text))


def enum_kind(*words: str) -> Kind[str]:
    """One of a few words."""
    *rest, last = (f'"{word}"' for word in words)

    def parse(raw: object) -> str:
        if not isinstance(raw, str) or raw not in words:
            raise ValueError(f"must be {', '.join(rest)} or {last}")
        return raw

    return Kind(parse, _same)


def duration_kind(low: float = 0.0, high: float = 10 * 365 * 86400.0) -> Kind[float]:
    """Seconds from `low` to `high`; ten years is more than anybody means and keeps sums with dates safe."""

    def parse(text: str) -> float:
        seconds = values.parse_duration(text)
        if not low <= seconds <= high:
            raise ValueError(f"must be from {values.show_duration(low)} to {values.show_duration(high)}")
        return seconds

    return text_kind(parse, values.show_duration)


DURATION_KIND: Final = duration_kind()


def _parse_lifetime(text: str) -> float:
    if text == "forever":
        return math.inf
    try:
        return DURATION_KIND.parse(text)
    except ValueError as refusal:
        raise ValueError(f'{refusal}, or "forever"') from None


def _show_lifetime(seconds: float) -> str:
    return "forever" if seconds == math.inf else values.show_duration(seconds)


def _parse_pattern(text: str) -> str:
    repository, colon, tag = text.rpartition(":")
    if not (colon and repository and tag) or "/" in tag or not _PATTERN.fullmatch(text):
        raise ValueError('must be REGISTRY/REPOSITORY:TAG, with "*" for any text, such as "quay.io/org/*:v*" or "*:v*"')
    return text


def _parse_images(text: str) -> str:
    if not _PATTERN.fullmatch(text) or ("*" not in text and "/" not in text) or text.endswith((":", "/")):
        raise ValueError('must be REGISTRY/REPOSITORY or REGISTRY/REPOSITORY:TAG, with "*" for any text')
    return text


def table_kind[T](key: Callable[[str], str], item: Kind[T]) -> Kind[tuple[tuple[str, T], ...]]:
    """A table of `item` by name, in its order; in an environment variable NAME=VALUE, comma separated."""

    def parse(raw: object) -> tuple[tuple[str, T], ...]:
        if not isinstance(raw, dict):
            raise ValueError("must be a table, in curly brackets")
        found: list[tuple[str, T]] = []
        for name, value in raw.items():
            try:
                found.append((key(name), item.parse(value)))
            except ValueError as refusal:
                raise ItemError({name: value}, str(refusal)) from None
        return tuple(found)

    def render(value: tuple[tuple[str, T], ...]) -> object:
        return {name: item.render(one) for name, one in value}

    def from_text(text: str) -> object:
        parts = [part.rpartition("=") for part in text.split(",") if part.strip()]
        return {name.strip(): item.from_text(value.strip()) for name, _, value in parts}

    return Kind(parse, render, from_text)


def or_word[T](word: str, kind: Kind[T]) -> Kind[T | str]:
    """A kind that also takes one word, such as "auto"."""

    def parse(raw: object) -> T | str:
        if raw == word:
            return word
        try:
            return kind.parse(raw)
        except ValueError as refusal:
            raise ValueError(f'{refusal}, or "{word}"') from None

    return Kind(parse, lambda value: value if value == word else kind.render(cast("T", value)), kind.from_text)


def or_empty[T](kind: Kind[T]) -> Kind[T | None]:
    """A kind where the empty text means: none."""

    def parse(raw: object) -> T | None:
        return None if raw == "" else kind.parse(raw)

    return Kind(parse, lambda value: "" if value is None else kind.render(value), kind.from_text)


def _parse_path(text: str) -> Path:
    if text.startswith("~"):
        raise ValueError('must be a path without "~": it means another folder for each user')
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return Path(text)


def _parse_word(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("must be text on one line, not empty")
    return text


def _parse_some(text: str) -> values.Size:
    try:
        size = values.parse_size(text)
    except ValueError:
        size = 0
    if size == 0:
        raise ValueError('must be a size with its unit and more than 0, such as "100GiB", or a share, such as "60%"')
    return size


PORT: Final = int_kind(0, 65535, "a port from 1 to 65535, or 0 for off")
BOOL: Final = bool_kind()
DURATION: Final = DURATION_KIND
LIFETIME: Final = text_kind(_parse_lifetime, _show_lifetime)
TAG_TTLS: Final = table_kind(_parse_pattern, LIFETIME)
IMAGES: Final = text_kind(_parse_images)
SIZE: Final = text_kind(values.parse_size, values.show_size)
SOME_SIZE: Final = text_kind(_parse_some, values.show_size)
RATE: Final = text_kind(values.parse_rate, values.show_rate)
ADDRESS: Final = text_kind(values.parse_address)
ENDPOINT: Final = text_kind(values.parse_endpoint)
NETWORK: Final = text_kind(values.parse_network)
HOST: Final = text_kind(values.parse_host)
URL: Final = text_kind(values.parse_url)
PATH: Final = text_kind(_parse_path)
WORD: Final = text_kind(_parse_word)


def kind_of(metadata: Any) -> Kind[Any]:
    """The kind a field made by `setting` or `optional` carries."""
    return cast("Kind[Any]", metadata["kind"])
