"""The embedded back end: where its two halves lie under `[store] path`."""

from pathlib import Path

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.database import BALLAST
from entrepot.cache.eviction import Protected
from entrepot.cache.interface import StoreError
from entrepot.cache.layout import Layout
from entrepot.cache.records import DiskRecords
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest


def open_blobs(path: Path, limits: Limits | None = None, *, protected: Protected = lambda digest: False) -> FileBlobs:
    """Blob files under `path`, within `limits` (None = none); creates what is missing. Raises `StoreError`."""
    return FileBlobs(path, limits, protected=protected)


def open_records(path: Path) -> DiskRecords:
    """Records under `path/records`; creates what is missing. Raises `StoreError`."""
    try:
        return DiskRecords(path / "records")
    except StoreError:
        # On a full disk SQLite cannot even open what it has. There is a ballast for that, which the keeper restores;
        # of processes that start at once, one finds it gone and the room there.
        (Layout(path).ledger / BALLAST).unlink(missing_ok=True)
        return DiskRecords(path / "records")


def protected_by(records: DiskRecords) -> Protected:
    """Protects what has a record `protected/<digest>`."""

    def protected(digest: Digest) -> bool:
        return records.has(f"protected/{digest}")

    return protected
