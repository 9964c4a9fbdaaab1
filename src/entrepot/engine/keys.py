"""What this box makes of secrets: the only form in which anything of them is kept.

Everything is derived from one key of the box, a key of its own for each purpose, so that what is made for one says
nothing about another. Which secrets there are, and what their names are good for, is decided by those who ask.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from entrepot.headers import CODEC

BYTES: Final = 32


class Keys:
    """Names for secrets, and the keys of those who make more of them."""

    def __init__(self, box_key: bytes) -> None:
        self._credentials = box_key
        self._names = _derived(box_key, "names of secrets")
        self.own_tokens = _derived(box_key, "tokens of our own")
        self.verifiers = _derived(box_key, "verifiers of passwords")

    def credential(self, registry: str, authorization: str) -> str:
        """Stands for one value of `Authorization` at one registry; says nothing about it."""
        return hmac.digest(self._credentials, f"{registry}\0{authorization}".encode(*CODEC), hashlib.sha256).hex()

    def name(self, *parts: str) -> str:
        """Stands for these texts, and for no others: what is made of them cannot be taken apart in another way."""
        return self._name(parts).hex()

    def salt(self, *parts: str) -> bytes:
        """16 bytes that are the same for the same texts, and that nobody else can know."""
        return self._name(("salt", *parts))[:16]

    def _name(self, parts: tuple[str, ...]) -> bytes:
        encoded = [part.encode(*CODEC) for part in parts]
        framed = b"".join(len(part).to_bytes(4) + part for part in encoded)
        return hmac.digest(self._names, framed, hashlib.sha256)


def _derived(box_key: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=BYTES, salt=None, info=f"entrepot: {purpose}".encode()).derive(
        box_key
    )
