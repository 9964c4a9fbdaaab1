"""diskcache's `Disk`, without pickle.

diskcache unpickles whatever a row says is a pickle, on keys and on values, so that who can write into the directory
can run code in us (CVE-2025-69872; `JSONDisk` inherits it). This one stores text and bytes, inline, and treats every
other row as absent.
"""

from typing import Any

from diskcache import Disk
from diskcache.core import MODE_RAW, UNKNOWN


class SafeDisk(Disk):  # type: ignore[misc]  # diskcache has no types
    """Keys are str; values are str or bytes; both live in the row itself, never in a file beside it."""

    def put(self, key: Any) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"a record's key is str, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or type(key) is not str:
            return ""  # a row that somebody else wrote; the empty key is never ours
        return key

    def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> tuple[int, int, None, str | bytes]:
        if read or type(value) not in (str, bytes):
            raise TypeError(f"a record's value is str or bytes, not {type(value).__name__}")
        return len(value), MODE_RAW, None, value

    def fetch(self, mode: int, filename: Any, value: Any, read: bool) -> str | bytes | None:
        if mode != MODE_RAW or filename is not None or read or type(value) not in (str, bytes):
            return None
        return value  # type: ignore[no-any-return]
