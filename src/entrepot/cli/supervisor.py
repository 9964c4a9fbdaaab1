"""The life of the processes: started, ready, dead, started again, told of a change, drained, gone.

One thread, one loop over signals and the children's outputs; no asyncio, whose import a start cannot afford. What the
children do is no concern of this module, and what they are told comes from its caller. Rules:

1. A child that dies is started again, later each time it dies young, but soon if it had been ready. The listening
   sockets stay open here meanwhile.
2. Until everything was ready once, a child that says it cannot work as it is configured (exit status `HOPELESS`) ends
   the whole start: it has said why, and nothing will change by itself.
3. A changed configuration reaches a child when it is ready; one that starts gets the newest.
4. The first SIGTERM or SIGINT drains, the second one kills. Either way the exit is clean: it was asked for. Before a
   drain the children are told that the box leaves, and go on as ever for a time that the caller sets.
5. A child that was ready and shows no life any more (see `watchdog`) is killed, and so started again.
6. A role that is not vital is started when all that are serve, so that no start waits for it, and left out, until the
   configuration changes, if it says that it cannot work.
7. However the supervisor ends, its children end: their input ends, and the kernel kills them (see `children`).
"""

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from entrepot.cli.brief import HOPELESS
from entrepot.cli.processes import Backoff, Child, Role, describe
from entrepot.cli.watchdog import PATIENCE, Watchdog

_log: Final = logging.getLogger("entrepot.supervisor")

_SOON: Final = 1.0  # seconds at most until a process that had been ready is started again
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Plans:
    """What the supervisor is to do, and what it asks of its caller."""

    roles: Sequence[Role]
    command: Callable[[Role], Sequence[str]]
    """The program of a role."""
    environ: Mapping[str, str]
    """For the children."""
    brief: Callable[[Role], bytes]
    """The first line a child is told, by the newest configuration."""
    reload: Callable[[], bytes | None]
    """On SIGHUP: takes the configuration anew; the line for running children, or None if nothing is to change."""
    serving: Callable[[], None]
    """Everything is ready for the first time."""
    leaving: Callable[[], tuple[bytes, float]]
    """The order to stop has come: the line for running children, and the seconds until they are to stop."""
    stopping: Callable[[], None]
    """No more connections: closes the listening sockets."""
    drain: float
    """Seconds from then until children are killed."""
    died: Callable[[Role], None] = lambda role: None
    """A child has died and is going to be started again."""


class Supervisor:
    """Use as a context manager: at its end no child is left, whatever happened."""

    def __init__(
        self,
        plans: Plans,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Callable[[], Backoff] = Backoff,
        patience: int = PATIENCE,
    ) -> None:
        """`patience`: seconds that a child may be silent."""
        self._plans = plans
        self._clock = clock
        self._children: dict[Role, Child] = {}
        self._backoff = {role: backoff() for role in plans.roles}
        self._watchdog = Watchdog[Child](clock, patience=patience)
        self._silence = f"was killed, having shown no life for {patience} s,"
        self._due: dict[Role, float] = {}  # when to start those that have died
        self._outdated: dict[Role, bytes] = {}  # told when they are ready
        self._briefed = False
        self._served = False
        self._deadline: float | None = None  # set = stopping
        self._leaving: float | None = None  # until when children go on as ever, though stopping
        self._killed = False
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._kernels = socket.socketpair()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Supervisor":
        for sock in (self._wakeup, self._kernels):
            sock.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, _woken)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            child.signal(signal.SIGKILL)
        for child in self._children.values():
            child.wait()
            child.close()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal has given
        self._selector.close()
        self._wakeup.close()
        self._kernels.close()

    def start(self) -> None:
        """Starts every child. They import what they need; their orders come with `run`."""
        for role in self._plans.roles:
            if role.vital:
                self._spawn(role)

    def run(self) -> int:
        """Gives the orders and watches until told to stop. Returns the exit code."""
        self._briefed = True
        for role, child in self._children.items():
            child.tell(self._plans.brief(role))
        while not (self._stopping and not self._children):
            for key, _ in self._selector.select(self._patience()):
                if not isinstance(key.data, Child):
                    if not self._signalled():
                        return 1
                elif self._children.get(key.data.role) is key.data:  # it may have been buried a moment ago
                    self._listen(key.data)
            self._on_time()
        return 0

    @property
    def _stopping(self) -> bool:
        return self._deadline is not None

    def _spawn(self, role: Role) -> None:
        child = Child(role, self._plans.command(role), self._plans.environ, self._clock())
        self._children[role] = child
        self._selector.register(child.output, selectors.EVENT_READ, child)
        if self._briefed:
            child.tell(self._plans.brief(role))

    def _listen(self, child: Child) -> None:
        was_ready = child.ready
        if not child.hear():
            self._selector.unregister(child.output)
        if child.ready and not was_ready:
            _log.debug("%s is ready", child)
            if line := self._outdated.pop(child.role, None):
                child.tell(line)
            self._check_all_ready()

    def _check_all_ready(self) -> None:
        vital = [self._children.get(role) for role in self._plans.roles if role.vital]
        if not self._served and all(child is not None and child.ready for child in vital):
            self._served = True
            self._plans.serving()
            self._start_the_others()

    def _start_the_others(self) -> None:
        """Those that are not vital and do not run."""
        if self._served and not self._stopping:
            now = self._clock()
            missing = [role for role in self._plans.roles if not role.vital and role not in self._children]
            self._due.update({role: now for role in missing if role not in self._due})

    def _signalled(self) -> bool:
        """Acts on signals that have come. False when it makes no sense to go on."""
        with suppress(BlockingIOError):
            for number in self._wakeup.recv(4096):
                if number == signal.SIGCHLD:
                    if not self._reap():
                        return False
                elif number == signal.SIGHUP:
                    self._reload()
                else:
                    self._stop(signal.Signals(number))
        return True

    def _reap(self) -> bool:
        """Looks who has died. False when the start is hopeless."""
        for role, child in list(self._children.items()):
            if (status := child.exit_status()) is None:
                continue
            del self._children[role]
            self._outdated.pop(role, None)
            with suppress(KeyError, ValueError):  # its output may have ended before
                self._selector.unregister(child.output)
            child.close()
            if self._stopping:
                continue
            if status == HOPELESS and not self._served:
                return False
            if status == HOPELESS and not role.vital:
                _log.warning("%s cannot work as it is configured: left out", child)
                continue
            lived = self._clock() - child.started
            delay = self._backoff[role].after(lived)
            if child.ready:  # it could work: whatever ended it, clients wait for the next one
                delay = min(delay, _SOON)
            self._due[role] = self._clock() + delay
            self._plans.died(role)
            fate = child.fate or describe(status)
            _log.error("%s %s after %.1f s; starting it again in %.1f s", child, fate, lived, delay)
        return True

    def _reload(self) -> None:
        if self._stopping or not self._briefed or (line := self._plans.reload()) is None:
            return
        for role, child in self._children.items():
            if child.ready:
                child.tell(line)
            else:  # it reads its first line in its own way; a second one has to wait
                self._outdated[role] = line
        self._start_the_others()

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping:
            _log.warning("%s again: not waiting any longer", number.name)
            self._deadline = self._clock()
            self._drain()
            return
        _log.info("%s: stopping when transfers under way have ended, or on a second signal", number.name)
        line, seconds = self._plans.leaving()
        self._leaving = self._clock() + seconds
        self._deadline = self._leaving + self._plans.drain
        self._due.clear()
        if seconds <= 0:
            self._drain()
            return
        for child in self._children.values():
            if child.ready:
                child.tell(line)

    def _drain(self) -> None:
        """Once."""
        if self._leaving is None:
            return
        self._leaving = None
        self._plans.stopping()
        for child in self._children.values():
            child.signal(signal.SIGTERM)

    def _patience(self) -> float | None:
        """Seconds until something is due by itself; None = nothing is."""
        moments = [*self._due.values(), *([] if self._leaving is None else [self._leaving])]
        if self._deadline is None:
            moments.append(self._watchdog.due)
        elif not self._killed:
            moments.append(self._deadline)
        return max(0.0, min(moments) - self._clock()) if moments else None

    def _on_time(self) -> None:
        now = self._clock()
        if self._leaving is not None and self._leaving <= now:
            self._drain()
        for child in [] if self._stopping else self._watchdog.look(self._children.values()):
            child.end(self._silence)
        for role in [role for role, moment in self._due.items() if moment <= now]:
            del self._due[role]
            try:
                self._spawn(role)
            except OSError as failure:  # no memory, no processes: as if it had died at once
                delay = self._backoff[role].after(0.0)
                self._due[role] = now + delay
                _log.error("%s cannot be started (%s); trying again in %.1f s", role, failure.strerror, delay)
        if self._deadline is not None and self._deadline <= now and self._children and not self._killed:
            names = ", ".join(str(child) for child in self._children.values())
            _log.warning("killed, having not ended in time: %s", names)
            for child in self._children.values():
                child.signal(signal.SIGKILL)
            self._killed = True  # what is left is to hear of their ends


def _woken(number: int, frame: FrameType | None) -> None:
    """The handler does nothing: the number comes through the wake-up socket."""
