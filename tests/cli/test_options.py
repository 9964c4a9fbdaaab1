from pathlib import Path

import click
import pytest

from entrepot.cli.main import run
from entrepot.cli.options import chosen


@pytest.mark.parametrize(
    ("given", "path", "expected"),
    [
        ({"config_path": Path("a")}, None, Path("a")),
        ({"config_path": Path("a")}, Path("b"), Path("b")),
        ({"config_path": None}, None, None),
        (None, None, None),
    ],
)
def test_the_file_named_last_wins(given: object, path: Path | None, expected: Path | None) -> None:
    assert chosen(click.Context(click.Command("x"), obj=given), path) == expected


@pytest.mark.parametrize("before", [True, False])
def test_the_file_may_be_named_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    file = tmp_path / "e.toml"
    file.write_text("[dns]\nttl = '77s'\n")
    option = ["--config", str(file)]
    assert run([*option, "config", "show"] if before else ["config", "show", *option]) == 0
    assert 'ttl = "77s"' in capsys.readouterr().out
