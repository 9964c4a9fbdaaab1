"""Setting the ledger right by the file tree, and sweeping what transfers left behind.

Nothing of this has to happen before the store can be used, and all of it may happen while it is. `verify` reads
directories in pieces and writes only where the ledger is wrong; `sweep` costs what is in `incoming`. When they run is
decided by `keeper` and the commands.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.eviction import PAGE, exclusive
from entrepot.cache.layout import ALGORITHMS, FANS, entries, lock_part, on_disk

_BESIDE: Final = (".size", ".size-new")  # files that belong to a part


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something in `incoming` that is of no use any more."""

    path: Path
    bytes: int  # on disk, in whole blocks
    age: float  # seconds since somebody wrote to it


def leftovers(store: FileBlobs, now: float) -> list[Leftover]:
    """Parts that nobody wrote to for `part_age`, and what belongs to parts that are gone."""
    limits, found = store.space.limits, list[Leftover]()
    for part in store.layout.parts():
        # The distance, not the difference: what was written under a clock far ahead must not stay for ever.
        if abs(now - part.modified) > limits.part_age and _is_idle(store.layout.part(part.digest)):
            found.append(Leftover(store.layout.part(part.digest), on_disk(part.size), now - part.modified))
    for entry in entries(store.layout.incoming):
        path = Path(entry.path)
        if path.suffix in _BESIDE and not path.with_suffix(".part").exists():
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if abs(now - stat.st_mtime) > limits.grace:
                found.append(Leftover(path, on_disk(stat.st_size), now - stat.st_mtime))
    return found


def sweep(store: FileBlobs, now: float) -> list[Leftover]:
    """Removes the leftovers, returns what is gone, and makes the ledger know every part that stays."""
    swept = list[Leftover]()
    parts = {store.layout.part(part.digest): part.digest for part in store.layout.parts()}
    for leftover in leftovers(store, now):
        if (digest := parts.get(leftover.path)) is None:
            leftover.path.unlink(missing_ok=True)
            swept.append(leftover)
        elif store.space.evictor.drop_part(digest):
            swept.append(leftover)
    store.space.evictor.reclaim()
    known = {digest for digest, _ in store.ledger.parts()}
    for part in store.layout.parts():
        if str(part.digest) not in known:
            _make_known(store, str(part.digest), store.layout.part(part.digest), store.layout.size(part.digest))
    return swept


def _make_known(store: FileBlobs, name: str, path: Path, announced: Path) -> None:
    if (fd := lock_part(path)) is not None:
        try:
            store.ledger.idle(name, on_disk(os.fstat(fd).st_size))
        finally:
            os.close(fd)
        return
    try:  # somebody writes it, whose reservation was lost with the ledger
        size = max(path.stat().st_size, int(announced.read_text()) if announced.exists() else 0)
    except (OSError, ValueError):
        return
    store.ledger.unknown(name, on_disk(size))


def _is_idle(path: Path) -> bool:
    if (fd := lock_part(path)) is None:
        return False
    os.close(fd)
    return True


def verify(store: FileBlobs, stop: threading.Event, *, pace: float = 1.0) -> int | None:
    """Looks through the file tree and sets the ledger right; returns how many rows were wrong.

    None when another process is at it, or `stop` was set. After each directory it rests `pace` times as long as the
    directory took.
    """
    with exclusive(store.layout.ledger / "verifier", wait=False) as elected:
        if not elected:
            return None
        wrong = 0
        for algorithm in ALGORITHMS:
            for fan in FANS:
                started = time.monotonic()
                wrong += verify_fan(store, algorithm, fan)
                if stop.wait((time.monotonic() - started) * pace):
                    return None
        sweep(store, store.space.now())
        store.ledger.sure()
        return wrong


def verify_fan(store: FileBlobs, algorithm: str, fan: str) -> int:
    """`verify` for the blobs whose hex begins with `fan`."""
    prefix = f"{algorithm}:{fan}"
    # The ledger first: what comes meanwhile looks like a row that is missing, and the transaction looks again.
    known = store.ledger.range(prefix)
    there = {str(held.digest): on_disk(held.size) for held in store.layout.fan(algorithm, fan)}
    doubtful = [digest for digest in known.keys() | there.keys() if known.get(digest) != there.get(digest)]
    return sum(
        store.ledger.settle(doubtful[at : at + PAGE], store.space.evictor.find)
        for at in range(0, len(doubtful), PAGE)  # in pieces: reservations wait for the transaction
    )
