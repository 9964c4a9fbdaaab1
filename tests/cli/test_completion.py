import subprocess

import pytest

from entrepot.cli.main import run


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_ENTREPOT_COMPLETE" in capsys.readouterr().out


def test_the_script_for_bash_is_bash(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_commands_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_ENTREPOT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "entrepot con")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out == "plain,config\n"
