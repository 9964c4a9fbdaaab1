"""How long is a byte that one process has written to the disk on its way to a reader in another?

Two processes on one store, with the classes of the product: one fetches, from a source that gives a piece now and
then, and notes when each was on the disk; the other waits for the blob as a worker does for its clients, and notes
when it may send the piece. Both read one clock (CLOCK_MONOTONIC). Either the first is told what to fetch and tells how
far it is, as the fetching process; or, as while that is away, neither knows of the other and the second looks at the
file.

    python -P bench/follower.py fetch|follow told|looks STORE SEED PIECES
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, override

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from entrepot.cache.blobs import FileBlobs, FilePart
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.upstream.fetcher import Fetcher
from entrepot.upstream.remote import Remote
from entrepot.upstream.source import Opened
from entrepot.upstream.transfers import Transfers

PIECE: Final = 4096  # bytes
PAUSES: Final = (0.002, 0.032)  # seconds between pieces: chance decides, so that no rhythm meets another
PARTNER_SECONDS: Final = 60.0
SOCKET: Final = "bench.sock"  # in the store

type Stamps = list[tuple[int, float]]
"""(bytes that were there, seconds)."""


class StampedBlobs(FileBlobs):
    """Notes when how much of a part was written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stamps: Stamps = []

    @override
    def claim(self, digest: Digest) -> FilePart | None:
        part = super().claim(digest)
        if part is not None:
            write = part.write

            def stamped(data: bytes) -> None:
                write(data)
                self.stamps.append((part.offset, time.monotonic()))

            vars(part)["write"] = stamped
        return part


class Trickle:
    """The source. Begins when a line comes on standard input."""

    name = "trickle"
    parallel = False

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.accepted = False

    def describe(self) -> Mapping[str, object]:
        return {}

    def serves(self, registry: str, repository: str) -> bool:
        return True

    @asynccontextmanager
    async def open(self, offset: int, stop: int | None = None) -> AsyncIterator[Opened]:
        self.accepted = True
        yield Opened(offset, len(self._content), self._pieces(offset))

    async def _pieces(self, offset: int) -> AsyncIterator[bytes]:
        await asyncio.to_thread(sys.stdin.readline)
        for at in range(offset, len(self._content), PIECE):
            await asyncio.sleep(random.uniform(*PAUSES))
            yield self._content[at : at + PIECE]
        await asyncio.sleep(PAUSES[1])  # the last piece is followed like the others


def content(seed: int, pieces: int) -> bytes:
    return random.Random(seed).randbytes(pieces * PIECE)


async def fetch(how: str, store: Path, data: bytes) -> Stamps:
    """Says `ready` when the other may begin."""
    blobs, over = StampedBlobs(store), asyncio.Event()
    transfers = Transfers(blobs, on_end=lambda _: over.set())
    if how == "told":
        fetcher = Fetcher(transfers, lambda _: Trickle(data), str_of, grant, mine=EntrepotError)
        await fetcher.serve(store / SOCKET, ready, over, PARTNER_SECONDS)
    else:
        transfer, _ = transfers.join(Digest.of(data), Trickle(data), len(data))
        with transfer.waiting():
            await transfer.opened()
            ready()
            await over.wait()
    await transfers.close()
    blobs.close()
    return blobs.stamps


async def follow(how: str, store: Path, data: bytes) -> Stamps:
    """Says `ready` when it waits."""
    blobs, stamps = FileBlobs(store), list[tuple[int, float]]()
    remote = Remote(store / SOCKET, lambda why: EntrepotError(str(why))) if how == "told" else None
    transfer, _ = Transfers(blobs, remote=remote).join(Digest.of(data), Trickle(data), len(data))
    with transfer.waiting():
        await transfer.opened()
        ready()
        while await transfer.wait(stamps[-1][0] if stamps else 0):
            stamps.append((transfer.available, time.monotonic()))
    blobs.close()
    return stamps


def ready() -> None:
    print("ready", flush=True)


def str_of(error: EntrepotError) -> dict[str, object]:
    return {"why": str(error)}


async def grant(_: str, wanted: int) -> int:
    return wanted


def delays(store: Path, how: str, pieces: int) -> list[float]:
    """Seconds for each piece."""
    store.mkdir()
    arguments = [how, str(store), str(random.getrandbits(60)), str(pieces)]
    with ExitStack() as stack:
        processes = []
        for role in ("fetch", "follow"):
            command = [sys.executable, "-P", __file__, role, *arguments]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the process that is to {role} has ended")
            processes.append(process)
        fetching, following = processes
        assert fetching.stdin is not None
        fetching.stdin.write("go\n")
        fetching.stdin.flush()
        results = [json.loads(each.communicate(timeout=PARTNER_SECONDS)[0]) for each in (following, fetching)]
    return matched(written=results[1], followed=results[0])


def matched(written: Stamps, followed: Stamps) -> list[float]:
    """From each stamp of the writer to the follower's first that covers it. The last byte is withheld: not compared."""
    found, later = [], iter(followed)
    there, when = next(later)
    for upto, at in written:
        while there < upto - 1:  # one byte stays back until the digest is known
            there, when = next(later)
        found.append(when - at)
    return found


def main() -> None:
    role, how, store, seed, pieces = sys.argv[1:]
    work = fetch if role == "fetch" else follow
    print(json.dumps(asyncio.run(work(how, Path(store), content(int(seed), int(pieces))))), flush=True)


if __name__ == "__main__":
    main()
