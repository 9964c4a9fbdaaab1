"""The entry of a child process: `python -P -m entrepot.cli.children ROLE`, started by the supervisor only.

Decides what holds for every role: it dies with its parent, imports its work before it waits for orders (that is where a
start spends its time), logs under its name, and turns what cannot work as configured into one line and `HOPELESS`.
What a role does is in `proxy_child`, `fetch_child`, `dns_child` and `web_child`.
"""

import importlib
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Final, Protocol, cast

from entrepot.cli.brief import HOPELESS, Brief
from entrepot.cli.logs import configure
from entrepot.errors import EntrepotError

ROLES: Final = {
    "proxy": "entrepot.cli.proxy_child",
    "fetch": "entrepot.cli.fetch_child",
    "dns": "entrepot.cli.dns_child",
    "web": "entrepot.cli.web_child",
}
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Work(Protocol):
    """What the module of a role offers."""

    def run(self, brief: Brief) -> None:
        """Works until told to stop."""


def die_with_parent() -> None:
    """The kernel kills us when the supervisor ends, even by kill -9: an orphan would keep the ports.

    Where there is no prctl, the end of standard input has to do.
    """
    import ctypes  # noqa: PLC0415  # by the time the work is imported it is loaded anyway

    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return


def is_orphan(descriptor: int) -> bool:
    """Whether the other end of our orders is closed: the parent ended before `die_with_parent` could have an effect.

    A killed process lets go of its pipes before the kernel looks for children to kill, so one of the two always holds.
    Orders that it has left in the pipe are not to be followed.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(happened & select.POLLHUP for _, happened in poll.poll(0))


def first_line(descriptor: int) -> bytes:
    """Orders come one at a time, so what is read up to the end of the line is the line. Empty: the parent is gone."""
    line = b""
    while not line.endswith(b"\n"):
        if not (data := os.read(descriptor, 1 << 20)):
            return b""
        line += data
    return line


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    (role,) = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    if is_orphan(sys.stdin.fileno()):
        return 0
    work = cast("Work", importlib.import_module(ROLES[role]))
    if not (line := first_line(sys.stdin.fileno())):
        return 0
    brief = Brief.from_line(line)
    configure(brief.config.log, f"{role}-{brief.index}")
    try:
        work.run(brief)
    except EntrepotError as refusal:
        logging.getLogger(f"entrepot.{role}").error("%s", refusal)
        return HOPELESS
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
