"""CVE-2025-69872: nothing that is in the directory makes us run code."""

import pickle
import sqlite3
from pathlib import Path

import pytest

from entrepot.cache.records import DiskRecords, opened


class Bomb:
    """Unpickling this fails the test."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was loaded')",))


@pytest.mark.parametrize("column", ["value", "key"])
async def test_a_planted_pickle_is_never_loaded(tmp_path: Path, column: str) -> None:
    records = DiskRecords(tmp_path)
    await records.put("tag/a", {"n": 1})
    payload = pickle.dumps(Bomb())
    with pytest.raises(SystemExit):  # the payload does work
        pickle.loads(payload)
    db = sqlite3.connect(tmp_path / "cache.db")
    with db:
        if column == "value":
            db.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 'tag/a'", (payload,))
        else:
            db.execute("UPDATE Cache SET raw = 0, key = ?", (payload,))
    db.close()
    assert records.get("tag/a") is None
    assert list(records.scan("")) == []
    await records.close()


async def test_a_planted_file_name_is_never_opened(tmp_path: Path) -> None:
    records = DiskRecords(tmp_path / "records")
    await records.put("tag/a", {"n": 1})
    secret = tmp_path / "secret"
    secret.write_text("secret")
    db = sqlite3.connect(tmp_path / "records" / "cache.db")
    with db:
        db.execute("UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = 'tag/a'", (str(secret),))
    db.close()
    assert records.get_bytes("tag/a") is None
    await records.close()


def test_other_types_are_refused(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    with pytest.raises(TypeError, match="str or bytes"):
        cache.set("a", {"a": 1})
    with pytest.raises(TypeError, match="key is str"):
        cache.set(("a",), "b")
    cache.close()
