"""The unit for systemd in deploy/."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entrepot.config import Config

UNIT = Path(__file__).parents[2] / "deploy/entrepot.service"


def settings() -> dict[str, str]:
    lines = UNIT.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_has_no_objection(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/entrepot", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if UNIT.name in line]) == (0, [])


def test_it_fits_the_program() -> None:
    unit = settings()
    assert unit["ExecStart"] == "/usr/local/bin/entrepot up"
    assert unit["Type"] == "notify"
    assert Path("/var/lib") / unit["StateDirectory"] == Config().store.path
    assert float(unit["TimeoutStopSec"].removesuffix("s")) > Config().listen.drain
    assert unit["ExecReload"].endswith("-HUP $MAINPID")
