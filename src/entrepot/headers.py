"""HTTP header fields as an immutable list that keeps order and duplicates.

Decides how names compare (case-insensitively, RFC 9110 section 5.1) and how text maps to bytes
(`CODEC`, which gives every byte sequence back unchanged). Leaves to others what a field means and
whether it may be sent: the HTTP client strips hop-by-hop fields and refuses line breaks.
"""

from collections.abc import Iterable, Iterator
from typing import Final, overload, override

CODEC: Final = ("utf-8", "surrogateescape")
"""Encoding and error handler of `Headers.raw`; the same as mitmproxy's and aiohttp's, so bytes survive the trip."""


class Headers:
    """Header fields in order, duplicates kept. Never changes; `with_` and `without` give a new one."""

    __slots__ = ("_index", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs: tuple[tuple[str, str], ...] = tuple(pairs)
        self._index: dict[str, tuple[str, ...]] | None = None

    @classmethod
    def from_raw(cls, pairs: Iterable[tuple[bytes, bytes]]) -> "Headers":
        """From the bytes of the wire; `raw` gives them back."""
        return cls((name.decode(*CODEC), value.decode(*CODEC)) for name, value in pairs)

    @property
    def raw(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields as bytes of the wire, names spelt as they came."""
        return tuple((name.encode(*CODEC), value.encode(*CODEC)) for name, value in self._pairs)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get[D](self, name: str, default: D) -> str | D: ...
    def get[D](self, name: str, default: D | None = None) -> str | D | None:
        """The first value of that name. Fields that are lists may have more: see `get_all`."""
        values = self._lookup().get(name.lower())
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        """Every value of that name, in order; empty when there is none."""
        return list(self._lookup().get(name.lower(), ()))

    def without(self, *names: str) -> "Headers":
        """The same fields less those of these names."""
        gone = {name.lower() for name in names}
        return Headers(pair for pair in self._pairs if pair[0].lower() not in gone)

    def with_(self, name: str, value: str) -> "Headers":
        """The same fields with exactly one `name`: in place of the first of that name, else at the end."""
        key = name.lower()
        pairs: list[tuple[str, str]] = []
        placed = False
        for pair in self._pairs:
            if pair[0].lower() != key:
                pairs.append(pair)
            elif not placed:
                pairs.append((name, value))
                placed = True
        if not placed:
            pairs.append((name, value))
        return Headers(pairs)

    def adding(self, name: str, value: str) -> "Headers":
        """The same fields and one more at the end, whatever there is of that name already."""
        return Headers((*self._pairs, (name, value)))

    def _lookup(self) -> dict[str, tuple[str, ...]]:
        if self._index is None:
            index: dict[str, tuple[str, ...]] = {}
            for name, value in self._pairs:
                key = name.lower()
                index[key] = (*index.get(key, ()), value)
            self._index = index
        return self._index

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lookup()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    @override
    def __eq__(self, other: object) -> bool:
        """Same fields, same order, same spelling."""
        return isinstance(other, Headers) and self._pairs == other._pairs

    @override
    def __hash__(self) -> int:
        return hash(self._pairs)

    @override
    def __repr__(self) -> str:
        """Names only: values may be credentials, and a repr ends up in logs."""
        return f"Headers({', '.join(name for name, _ in self._pairs)})"
