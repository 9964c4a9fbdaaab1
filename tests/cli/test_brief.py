import json

import pytest

from entrepot.cli.brief import Brief, reload_line, reloaded
from entrepot.config import Config, RegistryEntry


@pytest.mark.parametrize("probe", [None, ("127.0.0.1", 443)])
def test_a_child_reads_what_it_was_told(probe: tuple[str, int] | None) -> None:
    brief = Brief(Config(registries=(RegistryEntry("quay.io", tag_ttl=1.0),)), 2, (5, 6), probe, "entrepot-1a")
    line = brief.to_line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert Brief.from_line(line) == brief


def test_a_change() -> None:
    assert reloaded(reload_line(Config().to_json())) == Config()
    assert reloaded(json.dumps({"other": 1}).encode()) is None
