"""Real processes under a real supervisor, in the main thread (signals come nowhere else); the story runs beside."""

import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from entrepot.cli.processes import Backoff, Role
from entrepot.cli.supervisor import Plans, Supervisor


class Stage:
    """Plans whose callbacks are noted down."""

    def __init__(self, reports: Any, stub: Callable[[Role], Sequence[str]]) -> None:
        self.reports = reports
        self.stub = stub
        self.calls: list[str] = []
        self.serving = threading.Event()
        self.reloaded = threading.Event()
        self.version = 1
        self.bad = False
        self.leave = 0.0

    def brief(self, role: Role) -> bytes:
        return json.dumps({"version": self.version, "sockets": role.sockets}).encode() + b"\n"

    def reload(self) -> bytes | None:
        self.calls.append("reload")
        self.reloaded.set()
        if self.bad:
            return None
        self.version += 1
        return json.dumps({"reload": self.version}).encode() + b"\n"

    def served(self) -> None:
        self.calls.append("serving")
        self.serving.set()

    def left(self) -> tuple[bytes, float]:
        if self.leave:
            self.calls.append("leaving")
        return b'{"leave": true}\n', self.leave

    def run(
        self,
        *roles: Role,
        story: Callable[[], None],
        drain: float = 30.0,
        backoff: float = 0.001,
        patience: int = 1000,
    ) -> int:
        plans = Plans(
            roles=roles,
            command=self.stub,
            environ={"REPORT": str(self.reports.path)},
            brief=self.brief,
            reload=self.reload,
            serving=self.served,
            leaving=self.left,
            stopping=lambda: self.calls.append("stopping"),
            drain=drain,
            died=lambda role: self.calls.append(f"died {role}"),
        )
        supervising = Supervisor(plans, backoff=lambda: Backoff(first=backoff, longest=backoff), patience=patience)
        with told(story), supervising as supervisor:
            supervisor.start()
            return supervisor.run()


@contextmanager
def told(story: Callable[[], None]) -> Iterator[None]:
    """Runs the story beside; whatever happens in it, the supervisor is told to stop."""
    failures: list[BaseException] = []

    def tell() -> None:
        try:
            story()
        except BaseException as failure:  # it is raised again below
            failures.append(failure)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where the supervisor has returned already
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    if failures:
        raise failures[0]


@contextmanager
def ended(pid: int) -> Iterator[None]:
    """Waits for the end of a process, which comes some time after SIGKILL."""
    handle = os.pidfd_open(pid)
    yield
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


@pytest.fixture
def stage(reports: Any, stub: Callable[[Role], Sequence[str]]) -> Stage:
    return Stage(reports, stub)


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_start_to_stop(stage: Stage, number: signal.Signals) -> None:
    def story() -> None:
        for role in ("good-0", "good-1"):
            assert stage.reports.wait(role, "told")[3] == '{"version": 1, "sockets": []}'
        assert stage.serving.wait(20)
        os.kill(os.getpid(), number)
        for role in ("good-0", "good-1"):
            stage.reports.wait(role, "term")

    assert stage.run(Role("good", 0), Role("good", 1), story=story) == 0
    assert stage.calls == ["serving", "stopping"]
    assert all(gone(event[2]) for event in stage.reports.seen)


def test_the_dead_are_started_again_with_word_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def story() -> None:
        stage.reports.wait("mortal-0", "told", times=3)
        term()

    assert stage.run(Role("mortal", 0), story=story) == 0
    pid = stage.reports.wait("mortal-0", "told")[2]
    assert f"mortal-0 (pid {pid}) ended with exit status 3 after" in caplog.text
    assert "starting it again in" in caplog.text
    assert "serving" not in stage.calls
    assert stage.calls.count("died mortal-0") >= 2


def test_connections_wait_for_the_next_process(stage: Stage) -> None:
    """The listening socket stays open in the supervisor: nothing is refused, and nothing is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def ask() -> int:
            with socket.create_connection(listener.getsockname(), timeout=20) as peer:
                return int(peer.recv(100))

        def story() -> None:
            assert stage.serving.wait(20)
            first = ask()
            with ended(first):
                os.kill(first, signal.SIGKILL)
            second = ask()
            assert second != first
            term()

        assert stage.run(Role("server", 0, (listener.fileno(),)), story=story) == 0


def test_serving_is_told_once(stage: Stage) -> None:
    def story() -> None:
        assert stage.serving.wait(20)
        os.kill(stage.reports.wait("good-0", "told")[2], signal.SIGKILL)
        stage.reports.wait("good-0", "told", times=2)
        term()

    assert stage.run(Role("good", 0), story=story) == 0
    assert stage.calls.count("serving") == 1


def test_not_serving_before_all_are_ready(stage: Stage) -> None:
    def story() -> None:
        stage.reports.wait("good-0", "told")
        stage.reports.wait("gated-0", "told")
        term()

    assert stage.run(Role("good", 0), Role("gated", 0), story=story) == 0
    assert stage.calls == ["stopping"]


def test_a_second_signal_does_not_wait(stage: Stage) -> None:
    def story() -> None:
        assert stage.serving.wait(20)
        term()
        stage.reports.wait("stubborn-0", "term")
        term()

    assert stage.run(Role("stubborn", 0), story=story) == 0
    assert gone(stage.reports.wait("stubborn-0", "told")[2])


def test_the_time_to_drain_is_limited(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def story() -> None:
        assert stage.serving.wait(20)
        term()

    assert stage.run(Role("stubborn", 0), Role("good", 0), story=story, drain=0.2) == 0
    assert "killed, having not ended in time: stubborn-0" in caplog.text


def test_before_they_are_stopped_the_children_are_told(stage: Stage) -> None:
    stage.leave = 0.3

    def story() -> None:
        assert stage.serving.wait(20)
        term()
        for role in ("good-0", "good-1"):
            assert stage.reports.wait(role, "order")[3] == '{"leave": true}'
        for role in ("good-0", "good-1"):
            stage.reports.wait(role, "term")

    assert stage.run(Role("good", 0), Role("good", 1), story=story) == 0
    assert stage.calls == ["serving", "leaving", "stopping"]
    for role in ("good-0", "good-1"):
        events = [event[1] for event in stage.reports.seen if event[0] == role]
        assert events.index("order") < events.index("term")


def test_a_second_signal_ends_that_time_too(stage: Stage) -> None:
    stage.leave = 1000.0

    def story() -> None:
        assert stage.serving.wait(20)
        term()
        stage.reports.wait("stubborn-0", "order")
        assert stage.calls == ["serving", "leaving"]
        term()

    assert stage.run(Role("stubborn", 0), story=story) == 0
    assert stage.calls == ["serving", "leaving", "stopping"]


def test_nobody_is_started_again_while_stopping(stage: Stage) -> None:
    def story() -> None:
        assert stage.serving.wait(20)
        term()
        stage.reports.wait("stubborn-0", "term")
        stage.reports.wait("good-0", "term")  # it ends
        term()

    assert stage.run(Role("stubborn", 0), Role("good", 0), story=story) == 0
    assert [event[1] for event in stage.reports.seen if event[0] == "good-0"].count("started") == 1


def test_a_change_reaches_everybody(stage: Stage) -> None:
    def story() -> None:
        assert stage.serving.wait(20)
        os.kill(os.getpid(), signal.SIGHUP)
        for role in ("good-0", "good-1"):
            assert stage.reports.wait(role, "order")[3] == '{"reload": 2}'
        os.kill(stage.reports.wait("good-0", "told")[2], signal.SIGKILL)
        assert json.loads(stage.reports.wait("good-0", "told", times=2)[3])["version"] == 2
        term()

    assert stage.run(Role("good", 0), Role("good", 1), story=story) == 0


def test_a_bad_change_reaches_nobody(stage: Stage) -> None:
    stage.bad = True

    def story() -> None:
        assert stage.serving.wait(20)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stage.reloaded.wait(20)
        term()
        stage.reports.wait("good-0", "term")

    assert stage.run(Role("good", 0), story=story) == 0
    assert stage.calls == ["serving", "reload", "stopping"]
    assert "order" not in [event[1] for event in stage.reports.seen]


def test_a_change_waits_until_a_child_is_ready(stage: Stage) -> None:
    """It reads its first line in its own way, and may read too much."""

    def story() -> None:
        pid = stage.reports.wait("gated-0", "told")[2]
        os.kill(os.getpid(), signal.SIGHUP)
        stage.reports.wait("good-0", "order")  # at once or when it is ready, which may be later
        assert "order" not in [event[1] for event in stage.reports.seen if event[0] == "gated-0"]
        os.kill(pid, signal.SIGUSR1)
        assert stage.reports.wait("gated-0", "order")[3] == '{"reload": 2}'
        term()

    assert stage.run(Role("gated", 0), Role("good", 0), story=story) == 0


def test_a_hopeless_start_ends(stage: Stage) -> None:
    assert stage.run(Role("good", 0), Role("hopeless", 0), story=lambda: None) == 1
    stage.reports.wait("hopeless-0", "told")
    assert all(gone(event[2]) for event in stage.reports.seen)
    assert stage.calls == []


def test_what_is_not_vital_is_started_when_all_else_serves(stage: Stage) -> None:
    def story() -> None:
        pid = stage.reports.wait("gated-0", "told")[2]
        assert not stage.serving.is_set()
        os.kill(pid, signal.SIGUSR1)
        stage.reports.wait("good-0", "told")
        assert stage.serving.is_set()
        term()

    assert stage.run(Role("good", 0, vital=False), Role("gated", 0), story=story) == 0
    assert [event[:2] for event in stage.reports.seen].index(("good-0", "started")) > 1


def test_what_is_not_vital_may_be_hopeless(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Left out, with a line in the log, until the configuration changes."""

    def story() -> None:
        stage.reports.wait("hopeless-0", "told")
        assert stage.serving.wait(20)
        for _ in range(2000):
            if "left out" in caplog.text:
                break
            threading.Event().wait(0.01)
        else:
            raise AssertionError(caplog.text)
        os.kill(os.getpid(), signal.SIGHUP)
        stage.reports.wait("hopeless-0", "told", times=2)
        term()

    assert stage.run(Role("good", 0), Role("hopeless", 0, vital=False), story=story) == 0
    assert "cannot work as it is configured: left out" in caplog.text
    assert "starting it again" not in caplog.text
    assert "died hopeless-0" not in stage.calls


def test_a_program_that_cannot_be_started_again_is_tried_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    missing = iter([False, True, True, False])
    command = stage.stub

    def sometimes(role: Role) -> Sequence[str]:
        return ["/nonexistent/program"] if next(missing, False) else command(role)

    stage.stub = sometimes

    def story() -> None:
        stage.reports.wait("mortal-0", "told", times=2)
        term()

    assert stage.run(Role("mortal", 0), story=story) == 0
    assert caplog.text.count("mortal-0 cannot be started (No such file or directory)") == 2


def test_who_hangs_is_killed_and_started_again_with_one_line(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def story() -> None:
        stage.reports.wait("hung-0", "told", times=2)
        term()

    assert stage.run(Role("hung", 0), story=story, patience=1) == 0
    pid = stage.reports.wait("hung-0", "told")[2]
    lines = [line for line in caplog.messages if str(pid) in line]
    assert len(lines) == 1
    assert f"hung-0 (pid {pid}) was killed, having shown no life for 1 s, after" in lines[0]


def test_who_is_not_ready_may_be_silent(stage: Stage) -> None:
    def story() -> None:
        stage.reports.wait("hung-0", "told", times=2)  # seconds, in which the other one is silent too
        term()

    assert stage.run(Role("hung", 0), Role("gated", 0), story=story, patience=1) == 0
    assert [event[1] for event in stage.reports.seen if event[0] == "gated-0"].count("started") == 1


def test_who_stops_is_not_watched(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A drain has its own limit."""

    def story() -> None:
        assert stage.serving.wait(20)
        term()

    assert stage.run(Role("stubborn", 0), Role("lively", 0), story=story, patience=1, drain=3.5) == 0
    (line,) = [line for line in caplog.messages if "killed, having not ended in time" in line]
    assert "stubborn-0" in line
    assert "lively-0" in line


def test_nothing_is_left_when_the_caller_fails(stage: Stage) -> None:
    """As when the CA cannot be made: children are running by then."""
    plans = Plans(
        roles=[Role("good", 0)],
        command=stage.stub,
        environ={"REPORT": str(stage.reports.path)},
        brief=stage.brief,
        reload=stage.reload,
        serving=stage.served,
        leaving=lambda: (b"", 0.0),
        stopping=lambda: None,
        drain=1.0,
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="reason"), Supervisor(plans) as supervisor:
        supervisor.start()
        pid = stage.reports.wait("good-0", "started")[2]
        raise ValueError("reason")
    assert gone(pid)
    assert signal.getsignal(signal.SIGTERM) == before


def test_ready_is_logged_for_those_who_look(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def story() -> None:
        assert stage.serving.wait(20)
        term()

    stage.run(Role("good", 0), story=story)
    assert "is ready" in caplog.text
