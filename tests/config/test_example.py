"""The documented example: it loads, names every key, and every default it claims is the default."""

import re
from pathlib import Path

import pytest

from entrepot.config import Config, load
from entrepot.config.build import DEFAULT
from entrepot.config.model import SECTIONS, RegistryEntry, kinds_of

EXAMPLE = Path(__file__).parents[2] / "entrepot.toml"
NOWHERE = Path("/nonexistent/entrepot.toml")
_SETTING = re.compile(r"^#(?=\w+ = |\[)", re.MULTILINE)


@pytest.fixture
def uncommented(tmp_path: Path) -> Path:
    """The example with every default spelled out."""
    file = tmp_path / "entrepot.toml"
    file.write_text(_SETTING.sub("", EXAMPLE.read_text()))
    return file


def test_the_example_as_it_is_changes_nothing() -> None:
    assert load(EXAMPLE, {}).config == Config()


def test_every_documented_default_is_the_default(uncommented: Path) -> None:
    config = load(uncommented, {}).config
    for name in SECTIONS:
        assert getattr(config, name) == getattr(Config(), name), name


def test_every_key_is_documented(uncommented: Path) -> None:
    loaded = load(uncommented, {})
    assert [key for key, origin in loaded.origin.items() if origin == DEFAULT] == []
    (entry,) = loaded.config.registries
    assert [key for key in kinds_of(RegistryEntry) if getattr(entry, key) is None] == []


def test_every_key_has_a_comment_above() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if _SETTING.match(line) and not line.startswith("#["):
            above = number
            while _SETTING.match(lines[above]):
                above -= 1
            assert lines[above].startswith("# "), f"line {number + 1}: {line} has no comment"


def test_no_line_of_the_example_is_too_long() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if len(line) > 124] == []
