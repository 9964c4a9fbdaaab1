"""Child processes that do as they are told and report what happens to them, through a pipe: no waiting by time."""

import json
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from entrepot.cli.logs import CHATTY
from entrepot.cli.processes import Role

STUB = """
import json, os, signal, socket, sys, time
kind, name = sys.argv[1:]
report = os.open(os.environ["REPORT"], os.O_WRONLY)
def say(what, text=""):
    os.write(report, (json.dumps([name, what, os.getpid(), text]) + "\\n").encode())
def term(*_):
    say("term")
    if kind not in ("stubborn", "lively"):
        os._exit(0)
signal.signal(signal.SIGTERM, term)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
say("started", os.environ.get("NOTIFY_SOCKET", ""))
if kind == "deaf":
    signal.pause()
first = sys.stdin.readline()
say("told", first.strip())
if kind == "hopeless":
    os._exit(78)
if kind == "mortal":
    os._exit(3)
if kind == "chatty":
    print("a library says hello")
if kind == "gated":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if signal.sigwait([signal.SIGUSR1, signal.SIGTERM]) == signal.SIGTERM:
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
print("ready", flush=True)
while kind == "lively":
    print("alive", flush=True)
    time.sleep(0.1)
if kind == "hung":
    print("alive", flush=True)
    signal.pause()
if kind == "server":
    listener = socket.socket(fileno=int(json.loads(first)["sockets"][0]))
    listener.setblocking(True)
    while True:
        peer = listener.accept()[0]
        peer.sendall(str(os.getpid()).encode())
        peer.close()
for line in sys.stdin:
    say("order", line.strip())
say("eof")
"""

type Event = tuple[str, str, int, str]
"""Name of the role, what happened, pid, text."""


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Commands set the log of their process up, which here is the tests' process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


class Reports:
    """What the stubs say, in order."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.seen: list[Event] = []
        self._pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # open for writing too: it never ends
        self._rest = b""

    def wait(self, name: str, what: str, times: int = 1) -> Event:
        """The event, when it has happened so many times."""
        while len(found := [event for event in self.seen if event[:2] == (name, what)]) < times:
            if not select.select([self._pipe], [], [], 20)[0]:
                raise AssertionError(f"{name} never did {what}; it all was: {self.seen}")
            *lines, self._rest = (self._rest + os.read(self._pipe, 65536)).split(b"\n")
            self.seen += [tuple(json.loads(line)) for line in lines]
        return found[times - 1]

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Reports]:
    made = Reports(tmp_path / "reports")
    yield made
    made.close()


@pytest.fixture
def stub(reports: Reports) -> Callable[[Role], Sequence[str]]:
    """The command of a role; the role's name says how it behaves."""

    def command(role: Role) -> Sequence[str]:
        return [sys.executable, "-I", "-S", "-c", STUB, role.name, str(role)]

    return command
