"""Content digests: `sha256:` and `sha512:` with lower-case hex.

A `Digest` is checked when it is made, so whoever holds one may build a file name or a key of it. Hashing
of what flows by is the caller's; `Digest.hasher` only gives the object to feed.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from entrepot.errors import EntrepotError

if TYPE_CHECKING:
    from hashlib import _Hash

# The two algorithms the OCI image specification registers. Others are legal to write, and no registry
# or client in use does; what we cannot verify we must not store (rule 1), so they are refused.
_HEX = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}


class InvalidDigest(EntrepotError, ValueError):
    """The text is no digest of an algorithm we can verify."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of some bytes; raises `InvalidDigest` when made of anything else."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        pattern = _HEX.get(self.algorithm)
        if pattern is None or pattern.fullmatch(self.hex) is None:
            raise _invalid(f"{self.algorithm}:{self.hex}")

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Reads `algorithm:hex`; raises `InvalidDigest`."""
        algorithm, colon, hexadecimal = text.partition(":")
        if not colon:
            raise _invalid(text)
        return cls(algorithm, hexadecimal)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> "Digest":
        """The digest of `data`."""
        if algorithm not in _HEX:
            raise _invalid(f"{algorithm}:")
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> "_Hash":
        """A fresh hash object of this digest's algorithm; `hexdigest()` of it is to equal `hex`."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _invalid(text: str) -> InvalidDigest:
    return InvalidDigest(
        f"not a digest: {text[:200]!r}; it must read sha256: and 64, or sha512: and 128, lower-case hex digits"
    )
