"""Credential helpers, as real programs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from entrepot.engine.claims import Claim
from entrepot.engine.helpers import credential_from, program_of
from entrepot.engine.secretfiles import Unusable

type Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a program on the PATH: the name of a helper, and what its shell does."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = tmp_path / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o755)
        return path

    return make


GIVES = """echo "$@" > arguments; cat > asked; echo '{"ServerURL":"x","Username":"ann","Secret":"pa$$"}'"""


def test_the_protocol(install: Install, tmp_path: Path) -> None:
    install("here", GIVES)
    assert credential_from("here", ["quay.io"]) == Claim("ann", "pa$$")
    assert (tmp_path / "asked").read_text() == "quay.io"
    assert (tmp_path / "arguments").read_text() == "get\n"


def test_an_identity_token(install: Install) -> None:
    install("here", """echo '{"Username":"<token>","Secret":"long"}'""")
    assert credential_from("here", ["quay.io"]) == Claim("", "long")


def test_a_failure_is_that_it_has_nothing(install: Install, tmp_path: Path) -> None:
    install(
        "here", """read server; echo $server >> asked; test $server = b.io && echo '{"Username":"u","Secret":"s"}'"""
    )
    assert credential_from("here", ["a.io", "b.io", "c.io"]) == Claim("u", "s")
    assert (tmp_path / "asked").read_text() == "a.io\nb.io\n"


def test_no_shell_sees_the_name(install: Install, tmp_path: Path) -> None:
    install("here", GIVES)
    credential_from("here", ["$(touch pwned); `touch pwned`"])
    assert (tmp_path / "asked").read_text() == "$(touch pwned); `touch pwned`"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo hunter2; echo hunter2 >&2; exit 1",
            "docker-credential-here has nothing for a.io or b.io; try `printf a.io",
        ),
        ("echo hunter2", "docker-credential-here does not say Username and Secret for a.io"),
        ("""echo '["hunter2"]'""", "does not say Username and Secret"),
        ("""echo '{"Username":"","Secret":"hunter2"}'""", "does not say Username and Secret"),
        ("""echo '{"Username":"u","Secret":5}'""", "does not say Username and Secret"),
    ],
)
def test_what_gives_nothing(install: Install, script: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    install("here", script)
    with pytest.raises(Unusable) as refusal:
        credential_from("here", ["a.io", "b.io"])
    assert why in str(refusal.value)
    assert "hunter2" not in str(refusal.value) + "".join(capfd.readouterr())


def test_one_that_hangs_is_ended_with_all_it_has_started(install: Install, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    # The fifo's writing end is open in both as long as they live.
    install("here", "exec 3> alive; sleep 1000 & wait")
    reading = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Unusable, match=r"docker-credential-here has not answered within 0.3 s"):
            credential_from("here", ["quay.io"], timeout=0.3)
        os.set_blocking(reading, True)
        assert os.read(reading, 1) == b""  # returns when nobody has it open any more
    finally:
        os.close(reading)


def test_what_is_no_program(install: Install) -> None:
    install("here", "").write_bytes(b"\0\0")
    with pytest.raises(Unusable, match="docker-credential-here: cannot be run: exec format error"):
        credential_from("here", ["quay.io"])


def test_what_is_not_there() -> None:
    with pytest.raises(Unusable, match="there is no program docker-credential-nowhere on the PATH"):
        program_of("nowhere")


@pytest.mark.parametrize("name", ["../../bin/sh", "", "a b", "-x", "x\n"])
def test_a_name_that_is_a_path_is_none(name: str) -> None:
    """docker's configuration names helpers too."""
    with pytest.raises(Unusable, match="is not one"):
        program_of(name)
