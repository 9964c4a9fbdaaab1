import subprocess
import sys
from types import ModuleType

import click
import pytest

from entrepot import __version__
from entrepot.cli import main
from entrepot.cli.main import COMMANDS, Entry, run
from entrepot.errors import EntrepotError


def failing(failure: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise failure

    return command


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes a command `fail` that fails as told."""

    def install(failure: BaseException) -> None:
        monkeypatch.setattr("tests_cli_failing.command", failing(failure), raising=False)

    monkeypatch.setitem(sys.modules, "tests_cli_failing", ModuleType("tests_cli_failing"))
    monkeypatch.setattr(main, "COMMANDS", {"fail": Entry("tests_cli_failing:command", "Fail.")})
    return install


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (EntrepotError("port 443 is in use"), 1, "entrepot: port 443 is in use"),
        (EntrepotError("a\nb"), 1, "entrepot: a b"),
        (click.ClickException("no CA"), 1, "entrepot: no CA"),
        (click.UsageError("No such thing."), 2, "entrepot: no such thing; see `entrepot fail --help`"),
        (PermissionError(13, "Permission denied", "/x"), 1, "entrepot: /x: permission denied"),
        (OSError("odd"), 1, "entrepot: odd"),
        (KeyboardInterrupt(), 1, "entrepot: interrupted"),
    ],
)
def test_a_failure_is_one_line(
    fail: object, capsys: pytest.CaptureFixture[str], failure: BaseException, code: int, line: str
) -> None:
    assert callable(fail)
    fail(failure)
    assert run(["fail"]) == code
    captured = capsys.readouterr()
    assert captured.err.strip().splitlines() == [line]
    assert captured.out == ""


def test_a_bug_is_a_traceback(fail: object) -> None:
    assert callable(fail)
    fail(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run(["fail"])


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (["--nope"], "entrepot: no such option", "entrepot"),
        (["uq"], "entrepot: no such command", "entrepot"),
        (["config", "show", "--nope"], "entrepot: no such option", "entrepot config show"),
        (["completion", "tcsh"], "entrepot: invalid value for", "entrepot completion"),
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], what: str, where: str) -> None:
    assert run(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(what)
    assert arguments[-1] in said
    assert said.endswith(f"; see `{where} --help`")


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert run(["config"]) in {0, 2}  # click has changed its mind about it
    captured = capsys.readouterr()
    assert "check" in captured.out + captured.err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"entrepot {__version__}\n"
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert COMMANDS[name].summary.endswith(".")


def test_what_is_no_command_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "COMMANDS", {"x": Entry("entrepot.cli.main:run", "X.")})
    with pytest.raises(TypeError):
        run(["x"])


def imported_by(*arguments: str) -> set[str]:
    """The modules a command line imports in a process of its own."""
    program = (
        "import sys; from entrepot.cli.main import run; code = run(sys.argv[1:]); "
        "print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-P", "-c", program, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


HEAVY = {"mitmproxy", "aiohttp", "dns", "cryptography", "asyncio", "diskcache", "dnslib", "ssl"}


def test_help_imports_nothing_heavy() -> None:
    found = imported_by("--help")
    assert found & (HEAVY | {"entrepot.cli.up", "entrepot.config", "tomllib"}) == set()


def test_the_supervisor_imports_nothing_heavy() -> None:
    """It spawns its children first; what they import, they import beside each other."""
    assert imported_by("up", "--help") & HEAVY == set()


def test_a_reader_that_has_enough() -> None:
    program = "import sys; from entrepot.cli.main import main; sys.argv[0] = 'entrepot'; main()"
    command = [sys.executable, "-P", "-c", program, "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
