import asyncio
import os
from collections.abc import Iterator

import pytest

from entrepot.pulse import INTERVAL, LINE, beat, say


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_it_says_so_at_every_turn_of_the_loop(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await beat(theirs, pause)
    assert os.read(ours, 100) == (LINE + b"\n") * 3
    assert paused == [INTERVAL] * 4


def test_a_full_pipe_does_not_stop_us(pipe: tuple[int, int]) -> None:
    """The supervisor may be stopped itself."""
    _, theirs = pipe
    os.set_blocking(theirs, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(theirs, bytes(65536))
    os.set_blocking(theirs, True)
    say(theirs)


def test_a_supervisor_that_is_gone_is_no_failure() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    say(theirs)
    os.close(theirs)
