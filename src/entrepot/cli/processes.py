"""One child process: how it is started, heard, told, and when it is started again.

Decides nothing about when: that is `supervisor`. The child reads JSON lines from its standard input and writes "ready"
to its standard output, and then "alive" at every second; the end of its input tells it that the supervisor is gone.
"""

import fcntl
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

_log: Final = logging.getLogger("entrepot.supervisor")

# Bytes. A whole order is written without waiting for a child that is still importing; the kernel's default of 64 KiB is
# too little for some hundred registries, 1 MiB is what anybody may ask for.
_PIPE: Final = 1 << 20
_READY: Final = b"ready"
_ALIVE: Final = b"alive"  # see `entrepot.pulse`, which imports what is too heavy for a supervisor


@dataclass(frozen=True, slots=True)
class Role:
    """A process there is to be."""

    name: str
    """What it does: "proxy", "dns", "fetch", "web"."""
    index: int
    """Among those of its kind, from 0."""
    sockets: tuple[int, ...] = ()
    """Descriptors it inherits, under the same numbers."""
    vital: bool = True
    """Whether nothing is served without it; else it is started when all else serves, and may fail."""

    def __str__(self) -> str:
        return f"{self.name}-{self.index}"


@dataclass(slots=True)
class Backoff:
    """How long to wait before a process is started again: longer each time it dies young."""

    first: float = 0.2
    """Seconds."""
    longest: float = 30.0
    grown_up: float = 60.0
    """Seconds of life after which a death counts as the first."""
    _next: float = field(default=0.0, init=False)

    def after(self, lived: float) -> float:
        """Seconds to wait after a life of `lived` seconds."""
        if lived >= self.grown_up or not self._next:
            self._next = self.first
        delay = self._next
        self._next = min(delay * 2, self.longest)
        return delay


class Child:
    """A running process."""

    def __init__(self, role: Role, command: Sequence[str], environ: Mapping[str, str], now: float) -> None:
        self.role = role
        self.started = now
        self.ready = False
        self.beats = 0
        """How often it has said that it lives."""
        self.fate: str | None = None
        """Why it was killed, if it was by us."""
        self._heard = b""
        # A group of its own: Ctrl-C is for the supervisor, which tells the children in its own way.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=role.sockets,
            env=environ,
            process_group=0,
            bufsize=0,
        )
        self._pipes = cast("tuple[IO[bytes], IO[bytes]]", (self._process.stdin, self._process.stdout))
        self._orders, self.output = (pipe.fileno() for pipe in self._pipes)
        with suppress(OSError):  # the user's pipes may take too much already; the default does for most
            fcntl.fcntl(self._orders, fcntl.F_SETPIPE_SZ, _PIPE)
        for descriptor in (self._orders, self.output):
            os.set_blocking(descriptor, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __str__(self) -> str:
        return f"{self.role} (pid {self.pid})"

    def tell(self, line: bytes) -> None:
        """Writes an order. A child that takes none is killed: it would go on with old ones."""
        try:
            taken = os.write(self._orders, line)
        except BrokenPipeError:
            return  # it has died; the supervisor will hear of it
        except BlockingIOError:
            taken = 0
        if taken < len(line):
            _log.error("%s does not take its orders: killed", self)
            self.signal(signal.SIGKILL)

    def hear(self) -> bool:
        """Reads what the child says. False at the end of it."""
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return True
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            if line == _READY:
                self.ready = True
            elif line == _ALIVE:
                self.beats += 1
            else:  # a library that prints
                _log.debug("%s says: %s", self, line.decode(errors="replace"))
        return bool(data)

    def waits_for_disk(self) -> bool:
        """Whether it is in the middle of a call that nothing can interrupt; False where the kernel does not tell."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"D")
        except OSError:
            return False

    def end(self, fate: str) -> None:
        """Kills it; `fate` says why."""
        if self.fate is None:
            self.fate = fate
            self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """A process that is gone already is no failure."""
        self._process.send_signal(number)

    def exit_status(self) -> int | None:
        """None while it runs; negative: killed by that signal."""
        return self._process.poll()

    def close(self) -> None:
        """Lets go of the pipes. Also how a running child hears that it is not wanted any more."""
        for pipe in self._pipes:
            pipe.close()

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What children inherit: all but what speaks to the supervisor alone."""
    mine = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"}
    return {name: value for name, value in environ.items() if name not in mine}


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
