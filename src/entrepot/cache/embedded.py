"""The embedded back end: where its two halves lie under `[store] path`."""

from pathlib import Path

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.records import DiskRecords


def open_blobs(path: Path) -> FileBlobs:
    """Blob files under `path`; creates what is missing. Raises `StoreError`."""
    return FileBlobs(path)


def open_records(path: Path) -> DiskRecords:
    """Records under `path/records`; creates what is missing. Raises `StoreError`."""
    return DiskRecords(path / "records")
