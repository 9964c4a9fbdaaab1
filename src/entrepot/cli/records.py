"""Reads records beside the running processes, for commands that show them. Writes nothing."""

from collections.abc import Mapping
from pathlib import Path


def scanned(store: Path, prefix: str) -> list[tuple[str, Mapping[str, object]]]:
    """Every record whose key begins with `prefix`; none where there is no store yet."""
    if not (store / "records").is_dir():
        return []
    from entrepot.cache.embedded import open_records  # noqa: PLC0415  # sqlite3 is not needed to say that there is none

    records = open_records(store)
    try:
        return list(records.scan(prefix))
    finally:
        records.close_now()
