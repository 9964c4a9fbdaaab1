"""The last transfers, as a file for the page: what came from which registry, when, how fast, and whether it was right.

No repository, no client, no credential: a digest tells nobody who has not the image already.
"""

import json
from collections import deque
from pathlib import Path
from typing import Final

from entrepot.cache.interface import DigestMismatch
from entrepot.upstream.transfer import Transfer
from entrepot.web.readings import TRANSFERS

KEPT: Final = 20


class LastTransfers:
    """In memory; `flush` writes them down if there is news."""

    def __init__(self, run: Path) -> None:
        self._path = run / TRANSFERS
        self._last: deque[dict[str, object]] = deque(maxlen=KEPT)
        self._news = False

    def add(self, transfer: Transfer, *, now: float, seconds: float) -> None:
        """`now` in epoch seconds."""
        error = transfer.error
        self._last.append(
            {
                "at": now,
                "registry": transfer.origin.name,
                "digest": str(transfer.digest),
                "bytes": transfer.received,
                "seconds": seconds,
                "outcome": "ok" if error is None else "wrong" if isinstance(error, DigestMismatch) else "failed",
            }
        )
        self._news = True

    def flush(self) -> None:
        """Raises `OSError`."""
        if self._news:
            draft = self._path.with_suffix(".new")
            draft.write_text(json.dumps({"last": list(self._last)}))
            draft.replace(self._path)
            self._news = False
