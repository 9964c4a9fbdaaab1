"""A process that breeds others which work on a store until they are killed; run as a script.

    crowd.py ROOT SIZE

reads lines `SEED ROUNDS` and forks a child for each, answers with its pid; a child prints one letter per event and
ends after ROUNDS events (0 = never). An empty SEED is not answered: the line `wait PID` prints how a child ended.
Forking spares each child the start of Python; nothing of the store is open before the fork.
"""

import os
import random
import sys
from pathlib import Path

from tests.cache.filling import content

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.interface import NoRoom, TooLarge
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest

POOL = [content(number, 1 + number % 5) for number in range(40)]


def event(store: FileBlobs, chance: random.Random, now: float) -> str:
    """One thing that a worker may do."""
    data = chance.choice(POOL)
    digest = Digest.of(data)
    match chance.randrange(10):
        case 0:
            store.touch(digest, now)
            return "t"
        case 1:
            store.space.flush()
            store.space.make_headroom()
            return "h"
        case 2:
            return "d" if store.delete(digest) else "-"
    part = store.claim(digest)
    if part is None:
        return "-"
    try:
        part.load()
        if chance.random() < 0.7:
            part.reserve(len(data))
        step = chance.randrange(1000, 9000)
        while part.offset < len(data):
            part.write(data[part.offset : part.offset + step])
            if chance.random() < 0.1:
                part.release()
                return "r"
        part.commit()
    except NoRoom:
        part.release()
        return "n"
    except TooLarge:
        part.discard()
        return "!"
    return "c"


def work(root: Path, size: int, seed: int, rounds: int) -> None:
    """What a child does."""
    chance = random.Random(seed)
    clock = [1_000_000.0 + 1000 * seed]
    store = FileBlobs(root, Limits(size=size, grace=3.0), clock=lambda: clock[0])
    done = 0
    while not rounds or done < rounds:
        clock[0] += chance.random()
        os.write(1, event(store, chance, clock[0]).encode())
        done += 1
    store.close()


def main() -> None:
    root, size = Path(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        first, second = line.split()
        if first == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(int(second), 0)[1])
            os.write(1, f"\n{answer}\n".encode())
            continue
        if (pid := os.fork()) == 0:
            status = 1
            try:
                work(root, size, int(first), int(second))
                status = 0
            finally:
                os._exit(status)
        os.write(1, f"\n{pid}\n".encode())


if __name__ == "__main__":
    main()
