"""The steps a plan for a trust store is made of: shown to a person, or carried out.

Decides how a file is replaced safely. Leaves which steps to take to `stores` and `certs_d`; knows nothing of
certificates. Paths here are this host's own.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from entrepot.certs.errors import TrustError


@dataclass(frozen=True, slots=True)
class Write:
    """Makes the file say `content`, in one step, readable by all."""

    path: Path
    content: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """Makes the path a link to `target`."""

    path: Path
    target: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Removes the file or link, and with `prune` the folder it was in if that leaves it empty."""

    path: Path
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Runs a command of the system."""

    command: tuple[str, ...]
    package: str
    """What to install when it is not there."""


@dataclass(frozen=True, slots=True)
class Note:
    """Nothing to carry out: what a person has to know or do."""

    text: str


type Step = Write | Link | Remove | Run | Note
type Runner = Callable[[Sequence[str]], None]


def describe(step: Step) -> str:
    """One line, as an order: "write /etc/..."."""
    match step:
        case Write(path):
            return f"write {path}"
        case Link(path, target):
            return f"link {path} to {target}"
        case Remove(path):
            return f"remove {path}"
        case Run(command):
            return f"run {' '.join(command)}"
        case Note(text):
            return text
        case _:
            assert_never(step)


def as_json(step: Step) -> dict[str, str]:
    """The step as an object of JSON."""
    match step:
        case Write(path):
            return {"action": "write", "path": str(path)}
        case Link(path, target):
            return {"action": "link", "path": str(path), "target": target}
        case Remove(path):
            return {"action": "remove", "path": str(path)}
        case Run(command):
            return {"action": "run", "command": " ".join(command)}
        case Note(text):
            return {"action": "note", "text": text}
        case _:
            assert_never(step)


def changes(steps: Iterable[Step]) -> bool:
    """Whether a plan does anything but talk."""
    return not all(isinstance(step, Note) for step in steps)


def apply(steps: Iterable[Step], run: Runner) -> None:
    """Carries the steps out in order. Raises `TrustError`; what came before is done then, and can be done again."""
    for step in steps:
        try:
            _carry_out(step, run)
        except PermissionError as failure:
            raise TrustError(f"cannot {describe(step)}: permission denied; run this as root") from failure
        except FileNotFoundError as failure:
            if not isinstance(step, Run):
                raise TrustError(f"cannot {describe(step)}: {failure.strerror}") from failure
            raise TrustError(
                f"cannot {describe(step)}: there is no such command; install the package {step.package}"
            ) from failure
        except OSError as failure:
            raise TrustError(f"cannot {describe(step)}: {failure.strerror or failure}") from failure


def run_command(command: Sequence[str]) -> None:
    """The `Runner` for this host. Raises `TrustError` with what the command said."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ") or "it said nothing"
        raise TrustError(f"{' '.join(command)} failed with status {done.returncode}: {said}")


def _carry_out(step: Step, run: Runner) -> None:
    match step:
        case Write(path, content):
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        case Link(path, target):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        case Remove(path, prune):
            path.unlink(missing_ok=True)
            if prune and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        case Run(command):
            run(command)
        case Note():
            pass
        case _:
            assert_never(step)


def _replace(path: Path, content: bytes) -> None:
    """A reader sees the old or the new file: half a bundle would break every TLS client of the host."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        fresh = Path(stream.name)
        try:
            stream.write(content)
            stream.flush()
            fresh.chmod(0o644)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
