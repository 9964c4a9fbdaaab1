import logging
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from entrepot.cli.processes import Backoff, Child, Role, describe, own_environment

type Start = Callable[[str], Child]


@pytest.fixture
def start(stub: Callable[[Role], Sequence[str]], reports: Any) -> Iterator[Start]:
    made: list[Child] = []

    def begin(kind: str) -> Child:
        role = Role(kind, 0)
        made.append(Child(role, stub(role), {"REPORT": str(reports.path)}, 0.0))
        return made[-1]

    yield begin
    for child in made:
        child.signal(signal.SIGKILL)
        child.wait()
        child.close()


def hear(child: Child) -> bool:
    assert select.select([child.output], [], [], 20)[0]
    return child.hear()


def test_told_and_ready(start: Start, reports: Any) -> None:
    child = start("good")
    assert not child.ready
    child.tell(b'{"a": 1}\n')
    assert reports.wait("good-0", "told")[3] == '{"a": 1}'
    assert hear(child)
    assert child.ready
    assert child.hear()  # nothing more yet: no end


def test_the_end_of_its_input_is_the_end(start: Start, reports: Any) -> None:
    child = start("good")
    child.tell(b"{}\n")
    while not child.ready:
        hear(child)
    child.close()
    reports.wait("good-0", "eof")


def test_what_libraries_print_is_no_word_of_ours(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    child = start("chatty")
    child.tell(b"{}\n")
    while not child.ready:
        hear(child)
    assert "says: a library says hello" in caplog.text


def test_a_child_that_takes_no_orders_is_killed(start: Start, reports: Any, caplog: pytest.LogCaptureFixture) -> None:
    child = start("deaf")
    reports.wait("deaf-0", "started")
    child.tell(b"x" * (1 << 21))
    child.wait()
    assert child.exit_status() == -signal.SIGKILL
    assert "does not take its orders" in caplog.text


def test_a_whole_configuration_is_taken_without_waiting(start: Start, reports: Any) -> None:
    """While the child imports, nobody reads."""
    child = start("deaf")
    reports.wait("deaf-0", "started")
    child.tell(b"x" * 500_000)
    assert child.exit_status() is None


def test_telling_the_dead_is_no_failure(start: Start) -> None:
    child = start("hopeless")
    child.tell(b"{}\n")
    child.wait()
    child.tell(b"{}\n")
    child.signal(signal.SIGTERM)
    assert child.exit_status() == 78
    assert not hear(child)


def test_ctrl_c_does_not_reach_it(start: Start) -> None:
    child = start("good")
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    assert str(child) == f"good-0 (pid {child.pid})"


def test_it_waits_longer_each_time_up_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(10)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_a_long_life_is_a_fresh_start() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(59.9)
    assert backoff.after(60.0) == 0.2
    assert backoff.after(1.0) == 0.4


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3, "ended with exit status 3"),
        (-9, "was killed by SIGKILL"),
        (-64, "was killed by SIGRTMAX"),
        (-99, "was killed by signal 99"),
    ],
)
def test_exit_status_in_words(status: int, text: str) -> None:
    assert describe(status) == text


def test_what_speaks_to_the_supervisor_stays_there() -> None:
    assert own_environment({"PATH": "/bin", "NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1"}) == {"PATH": "/bin"}
