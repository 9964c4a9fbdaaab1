"""The embedded back end: where its two halves lie under `[store] path`."""

import logging
from pathlib import Path

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.database import BALLAST
from entrepot.cache.eviction import Protected
from entrepot.cache.interface import NoRoom, StoreError
from entrepot.cache.layout import Layout
from entrepot.cache.records import DiskRecords
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest

_log = logging.getLogger("entrepot.cache")


def open_blobs(path: Path, limits: Limits | None = None, *, protected: Protected = lambda digest: False) -> FileBlobs:
    """Blob files under `path`, within `limits` (None = none); creates what is missing. Raises `StoreError`."""
    return FileBlobs(path, limits, protected=protected)


def open_records(path: Path) -> DiskRecords:
    """Records under `path/records`; creates what is missing. Raises `StoreError`.

    On a disk that is quite full they can be read, and nothing is kept until there is room.
    """
    directory = path / "records"
    try:
        return DiskRecords(directory)
    except StoreError:
        # On a full disk SQLite cannot even open what it has. There is a ballast for that, which the keeper restores;
        # of processes that start at once, one finds it gone and the room there.
        (Layout(path).ledger / BALLAST).unlink(missing_ok=True)
    try:
        return DiskRecords(directory)
    except NoRoom as full:
        try:
            records = DiskRecords(directory, read_only=True)
        except StoreError:
            raise full from None
        _log.warning("%s; they are only read until there is room", full)
        return records


def protected_by(records: DiskRecords) -> Protected:
    """Protects what has a record `protected/<digest>`."""

    def protected(digest: Digest) -> bool:
        return records.has(f"protected/{digest}")

    return protected
