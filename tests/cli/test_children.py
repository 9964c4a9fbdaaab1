import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from entrepot.cli import children
from entrepot.cli.brief import HOPELESS, Brief
from entrepot.config import Config, Log
from entrepot.errors import EntrepotError

BRIEF = Brief(Config(log=Log(format="json")), 1, (), None, "entrepot-1a")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Brief], None]], None]:
    """Gives the role "test" something to do; this process is not to die with its parent."""

    def install(run: Callable[[Brief], None]) -> None:
        module = ModuleType("entrepot_test_work")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "entrepot_test_work", module)
        monkeypatch.setattr(children, "ROLES", {"test": "entrepot_test_work"})
        monkeypatch.setattr(children, "die_with_parent", lambda: None)

    return install


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe that becomes standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writing


def test_a_role_does_its_work(work: Callable[[Callable[[Brief], None]], None], orders: int) -> None:
    done: list[Brief] = []
    work(done.append)
    os.write(orders, BRIEF.to_line())
    assert children.main(["test"]) == 0
    os.close(orders)
    assert done == [BRIEF]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_no_orders_no_work(work: Callable[[Callable[[Brief], None]], None], orders: int) -> None:
    """The supervisor has died before it could tell us."""
    done: list[Brief] = []
    work(done.append)
    os.close(orders)
    assert children.main(["test"]) == 0
    assert done == []


def test_an_orphan_follows_no_orders(work: Callable[[Callable[[Brief], None]], None], orders: int) -> None:
    """The supervisor was killed while we started: too early for the kernel to end us, but it had given its orders."""
    done: list[Brief] = []
    work(done.append)
    os.write(orders, BRIEF.to_line())
    os.close(orders)
    assert children.main(["test"]) == 0
    assert done == []


def test_what_cannot_work_is_one_line(
    work: Callable[[Callable[[Brief], None]], None], orders: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Brief) -> None:
        raise EntrepotError("the key is open to everyone")

    work(fail)
    os.write(orders, BRIEF.to_line())
    assert children.main(["test"]) == HOPELESS
    os.close(orders)
    (line,) = capfd.readouterr().err.splitlines()
    assert '"process": "test-1"' in line
    assert "the key is open to everyone" in line


def test_a_line_that_comes_in_pieces() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a"')
    os.write(writing, b": 1}\n")
    assert children.first_line(reading) == b'{"a": 1}\n'
    os.write(writing, b"half")
    os.close(writing)
    assert children.first_line(reading) == b""
    os.close(reading)


def test_it_dies_with_its_parent() -> None:
    """A parent that is killed outright takes its child with it, although the child's input stays open."""
    program = """
import os, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-P", "-c",
     "from entrepot.cli.children import die_with_parent; import signal; die_with_parent(); print(1, flush=True);"
     "signal.pause()"],
    stdin=0, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert select.select([handle], [], [], 20)[0]
        os.close(handle)


def test_every_role_has_its_module() -> None:
    for module in children.ROLES.values():
        assert (Path(children.__file__).parent / f"{module.rpartition('.')[2]}.py").is_file()
