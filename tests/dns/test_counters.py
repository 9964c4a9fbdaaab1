"""Numbers that can be exported."""

import dataclasses

from entrepot.dns.counters import Counters


def test_a_kind_is_counted_and_exported() -> None:
    counters = Counters()
    counters.add("cached")
    counters.add("cached")
    exported = dataclasses.asdict(counters)
    assert exported.pop("cached") == 2
    assert set(exported.values()) == {0}
