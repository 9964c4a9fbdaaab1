"""Answers of upstreams, kept as long as they live, their TTLs counting down.

Decides what is thrown out when it is full: the least recently used. The clock is the caller's. Entries are whole
replies as bytes; ageing one patches its TTLs, at most once a second.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from entrepot.dns.records import Answer
from entrepot.dns.wire import Reply

_OVERHEAD: Final = 500  # bytes an entry costs besides its key, its body twice and its TTLs (tracemalloc, CPython 3.13)
_PER_TTL: Final = 120  # bytes: a pair and its numbers


@dataclass(slots=True)
class _Entry:
    answer: Answer
    born: float
    age: int  # seconds for which `reply` is true
    reply: Reply


class AnswerCache:
    """Bounded both ways: many small answers, and few large ones (a TCP answer has up to 64 KiB)."""

    def __init__(self, entries: int = 10_000, size: int = 32 << 20) -> None:
        """`entries` at most, `size` bytes at most, both together with their bookkeeping."""
        self._entries = entries
        self._size = size
        self._held: OrderedDict[bytes, _Entry] = OrderedDict()
        self._used = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def used(self) -> int:
        """Bytes, estimated."""
        return self._used

    def get(self, key: bytes, now: float) -> tuple[Reply, float] | None:
        """The answer as it is now, and until when it stays true: a TTL is whole seconds."""
        entry = self._held.get(key)
        if entry is None:
            return None
        age = max(0, int(now - entry.born))
        if age >= entry.answer.life:
            self._drop(key)
            return None
        if age != entry.age:
            entry.age, entry.reply = age, entry.answer.aged(age)
        self._held.move_to_end(key)
        return entry.reply, entry.born + age + 1

    def put(self, key: bytes, answer: Answer, now: float) -> None:
        """Keeps `answer` if it may be kept, instead of what was there."""
        if key in self._held:
            self._drop(key)
        cost = _cost(key, answer)
        if answer.life <= 0 or cost > self._size:
            return
        self._held[key] = _Entry(answer, now, 0, answer.aged(0))
        self._used += cost
        while len(self._held) > self._entries or self._used > self._size:
            self._drop(next(iter(self._held)))

    def _drop(self, key: bytes) -> None:
        self._used -= _cost(key, self._held.pop(key).answer)


def _cost(key: bytes, answer: Answer) -> int:
    return _OVERHEAD + len(key) + 2 * len(answer.reply.body) + _PER_TTL * len(answer.ttls)
