"""A store as the disk has it, looked at from outside while it is used, and what must hold of it at every instant.

Nothing here goes through the product's code: files are hashed, parts are compared with what the upstream has, locks are
read from the kernel, and the databases are opened read-only, so that looking repairs nothing.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

BLOCK = 4096  # bytes; the ledger counts in these


def in_blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class Store:
    """The store below `root`. `original` finds the upstream's own file of a blob, by digest."""

    def __init__(self, root: Path, original: Callable[[str], Path]) -> None:
        self.root = root
        self._original = original
        self._right: dict[str, tuple[int, int]] = {}  # blobs that were looked at: inode and size

    def blobs(self) -> dict[str, int]:
        """Digest and size of everything that is committed."""
        return {f"{path.parts[-3]}:{path.name}": size for path, _, size in self._files("blobs/*/*/*")}

    def parts(self) -> dict[str, int]:
        """Digest of everything that is under way, or was, and the bytes that are there."""
        return {digest_of(path): size for path, _, size in self._files("incoming/*.part")}

    def there(self) -> int:
        """Bytes that blobs and parts take."""
        return sum(in_blocks(size) for size in (*self.blobs().values(), *self.parts().values()))

    def writers(self) -> dict[str, int]:
        """Digest of every part that somebody has the right to write, and his pid: who holds its flock."""
        owners = {}
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[3] == "WRITE":
                owners[int(fields[5].rpartition(":")[2])] = int(fields[4])
        found = self._files("incoming/*.part")
        return {digest_of(path): owners[inode] for path, inode, _ in found if inode in owners}

    def check(self) -> None:
        """Blobs that are new, or other files than before, have their digest; parts are the beginning of their blob."""
        for path, inode, size in self._files("blobs/*/*/*"):
            if self._right.get(path.name) != (inode, size):
                self._check_blob(path)
                self._right[path.name] = inode, size
        for path, _, _ in self._files("incoming/*.part"):
            with suppress(FileNotFoundError):  # committed since
                there = path.read_bytes()
                with self._original(digest_of(path)).open("rb") as true:
                    assert there == true.read(len(there)), f"{path} is no beginning of its blob"

    def check_all(self) -> None:
        """The same, and every blob anew."""
        self._right.clear()
        self.check()

    @staticmethod
    def _check_blob(path: Path) -> None:
        with suppress(FileNotFoundError), path.open("rb") as file:  # evicted since
            assert hashlib.file_digest(file, path.parts[-3]).hexdigest() == path.name, f"{path} is something else"

    def check_databases(self) -> int:
        """Ledger and records open, are sound and readable; returns the bytes that the ledger counts."""
        with closing(_opened(self.root / "records/cache.db")) as db:
            for (value,) in db.execute("SELECT value FROM Cache WHERE key NOT LIKE 'manifest/%'"):
                json.loads(value)
            for key, value in db.execute("SELECT key, value FROM Cache WHERE key LIKE 'manifest/sha256:%'"):
                body = value.partition(b"\n")[2]
                assert key == f"manifest/sha256:{hashlib.sha256(body).hexdigest()}"
        with closing(_opened(self.root / "ledger/ledger.db")) as db:
            summed = db.execute("SELECT total(bytes) FROM blobs").fetchone()[0]
            reserved = db.execute("SELECT total(bytes) FROM parts").fetchone()[0]
            assert db.execute("SELECT blob_bytes, part_bytes FROM sums").fetchone() == (summed, reserved)
        return int(summed + reserved)

    def _files(self, pattern: str) -> Iterator[tuple[Path, int, int]]:
        """Path, inode and size."""
        for path in self.root.glob(pattern):
            with suppress(FileNotFoundError):
                stat = path.stat()
                yield path, stat.st_ino, stat.st_size


def digest_of(part: Path) -> str:
    return part.stem.replace("-", ":")


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
    except BaseException:
        db.close()
        raise
    return db
