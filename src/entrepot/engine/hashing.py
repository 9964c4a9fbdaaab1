"""Passwords hashed slowly: argon2id in a thread, one at a time, and not again for one that was hashed lately.

The parameters are OWASP's: 19 MiB, two passes, one lane. Each hash costs some 25 ms of a core, without holding the
interpreter. What was hashed lately is found by a keyed hash of the password; that key never leaves the process.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from entrepot.engine.flights import Flights
from entrepot.errors import EntrepotError

MEMORY: Final = 19 * 1024  # KiB
PASSES: Final = 2
LANES: Final = 1
PARAMETERS: Final = f"m={MEMORY},t={PASSES},p={LANES}"
LENGTH: Final = 32  # bytes
MAX_WAITING: Final = 32
REMEMBERED_FOR: Final = 600.0  # seconds
MAX_REMEMBERED: Final = 1024


class Busy(EntrepotError):
    """More passwords are waiting to be checked than is good: ask again."""


class SlowHash:
    """Belongs to one event loop."""

    def __init__(self, pepper: bytes, clock: Callable[[], float]) -> None:
        self._pepper, self._clock = pepper, clock
        # A thread of its own, one at a time: every thread that has made a hash keeps its memory.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._waiting = 0
        self._flights: Flights[str, bytes] = Flights("hash")
        self._memo_key = os.urandom(32)
        self._memo: dict[str, tuple[bytes, float]] = {}

    async def hash(self, salt: bytes, secret: bytes) -> tuple[bytes, bytes]:
        """Salt and hash. Raises `Busy`, and UnsupportedAlgorithm where OpenSSL has no argon2."""
        name = self._name(salt, secret)
        if (known := self._remembered(name)) is not None:
            return salt, known
        return salt, await self._flights.run(name, lambda: self._make(name, salt, secret))

    def knows(self, material: tuple[bytes, bytes]) -> bool:
        """Whether a hash of this would cost nothing."""
        return self._remembered(self._name(*material)) is not None

    async def _make(self, name: str, salt: bytes, secret: bytes) -> bytes:
        if self._waiting >= MAX_WAITING:
            raise Busy("too many passwords to check at once; try again")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._thread, _argon2id, salt, secret, self._pepper)
        finally:
            self._waiting -= 1
        if len(self._memo) >= MAX_REMEMBERED:
            self._memo.clear()
        self._memo[name] = made, self._clock() + REMEMBERED_FOR
        return made

    def _remembered(self, name: str) -> bytes | None:
        made, until = self._memo.get(name, (None, 0.0))
        return made if self._clock() < until else None

    def _name(self, salt: bytes, secret: bytes) -> str:
        return hashlib.blake2b(salt + secret, key=self._memo_key, digest_size=16).hexdigest()


def _argon2id(salt: bytes, secret: bytes, pepper: bytes) -> bytes:
    kdf = Argon2id(salt=salt, length=LENGTH, iterations=PASSES, lanes=LANES, memory_cost=MEMORY, secret=pepper)
    return kdf.derive(secret)
