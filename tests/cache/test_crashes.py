"""DESIGN rule 10: `kill -9` at any instant leaves a store that opens at once and is right."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.cache.filling import Machine, holds

from entrepot.cache import repair
from entrepot.cache.blobs import FileBlobs
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest

SIZE = 30 * BLOCK
KILLS = 60


class Crowd:
    """Real processes on one store; see `crowd`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._letters = b""

    def start(self, seed: int, rounds: int = 0) -> int:
        return self._ask(f"{seed} {rounds}\n")

    def wait(self, pid: int) -> int:
        """The exit code, negative for a signal."""
        return self._ask(f"wait {pid}\n")

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self.wait(pid) == -signal.SIGKILL

    def events(self, number: int) -> None:
        """Returns when so many more have happened."""
        while len(self._letters) < number:
            self._letters += self._read()
        self._letters = self._letters[number:]

    def _ask(self, line: str) -> int:
        self._in.write(line.encode())
        self._in.flush()
        while True:  # an answer is a line of its own between letters
            before, newline, rest = self._letters.partition(b"\n")
            answer, end, after = rest.partition(b"\n")
            if newline and end:
                self._letters = before + after
                return int(answer)
            self._letters += self._read()

    def _read(self) -> bytes:
        piece = os.read(self._out.fileno(), 1 << 16)
        assert piece, "the crowd has ended"
        return piece


@contextmanager
def crowd(root: Path, size: int = SIZE) -> Iterator[Crowd]:
    project = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("crowd.py")), str(root), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(project)},
        bufsize=0,
    )
    with process:
        yield Crowd(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def check(store: FileBlobs, machine: Machine) -> None:
    """What has to be true at every instant, with nothing repaired."""
    assert machine.there() <= SIZE
    sums = store.ledger.sums()
    assert sums.complete
    assert machine.there() <= sums.used <= SIZE
    with closing(sqlite3.connect(machine.root / "ledger" / "ledger.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        blobs = db.execute("SELECT count(*), total(bytes), total(bytes * held) FROM blobs").fetchone()
        assert db.execute("SELECT * FROM sums").fetchone() == (
            *blobs,
            *db.execute("SELECT total(bytes) FROM parts").fetchone(),
        )
    for digest in holds(store):
        assert Digest.of(store.blob_path(digest).read_bytes(), digest.algorithm) == digest


def check_repaired(store: FileBlobs, machine: Machine) -> None:
    """A look at what transfers left, and at the rows of what is gone, makes it exact."""
    for fan in {digest[7:9] for digest in store.ledger.range("sha256:")}:
        repair.verify_fan(store, "sha256", fan)
    repair.sweep(store, machine.now)
    sums = store.ledger.sums()
    assert sums.used == machine.there()
    assert sums.blobs == len(holds(store))


def test_killed_at_any_instant(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=SIZE, part_age=1e12))
    chance = random.Random(6)
    with crowd(tmp_path) as processes:
        for kill in range(KILLS):
            pids = [processes.start(2 * kill + n) for n in range(1 + kill % 2)]
            processes.events(chance.randrange(1, 40))
            for pid in pids:
                processes.kill(pid)
            store = machine.store()
            check(store, machine)
            if kill % 5 == 4:
                check_repaired(store, machine)
            store.close()
    assert holds(machine.store())


def test_processes_that_fill_one_store_keep_its_limits(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=SIZE, part_age=1e12))
    store = machine.store()
    with crowd(tmp_path) as processes:
        pids = [processes.start(seed, rounds=150) for seed in range(3)]
        for _ in range(20):
            processes.events(15)
            assert machine_there(machine) <= SIZE
        assert [processes.wait(pid) for pid in pids] == [0, 0, 0]
    check(store, machine)
    check_repaired(store, machine)
    store.close()


def machine_there(machine: Machine) -> int:
    """As `Machine.there`, while files come and go."""
    while True:
        try:
            return machine.there()
        except FileNotFoundError:
            continue
