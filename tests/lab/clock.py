"""The clock of the day of some processes, moved while they run.

A shared object of ours is preloaded into them (`clock.c`). Debian's faketime was tried: with the monotonic clock left
alone, which is what a jump of the real clock does, its version 0.9.10 makes `clock_nanosleep` fail, and so Python's
`time.sleep`. What a jump would do and this does not: the kernel goes on dating files by its own clock.
"""

import struct
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Right at first. `folder` gets the shared object and the file that says how far it is off."""

    def __init__(self, folder: Path) -> None:
        self._library, self._file = folder / "clock.so", folder / "clock"
        flags = ("-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC")
        subprocess.run(["gcc", *flags, "-o", str(self._library), str(SOURCE)], check=True)
        self.set(timedelta())

    @property
    def env(self) -> Mapping[str, str]:
        """For the processes."""
        return {"LD_PRELOAD": str(self._library), "LAB_CLOCK": str(self._file)}

    def set(self, ahead: timedelta) -> None:
        """As seen from the right time; negative: behind it."""
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", round(ahead.total_seconds())))
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time(), UTC) + self._ahead
