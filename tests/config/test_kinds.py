from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.config import kinds
from entrepot.config.kinds import ItemError, Kind
from entrepot.config.model import SECTIONS, RegistryEntry, kinds_of

ALL: list[Kind[Any]] = [kind for section in (*SECTIONS.values(), RegistryEntry) for kind in kinds_of(section).values()]
_TOML = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["auto", "10s", "1GiB", "::"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["helper", "username"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(ALL), _TOML)
def test_parses_and_comes_back_or_says_what_is_allowed(kind: Kind[Any], raw: object) -> None:
    try:
        value = kind.parse(raw)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
        assert str(refusal)
    else:
        assert kind.parse(kind.render(value)) == value


@given(st.sampled_from(ALL), st.text())
def test_any_text_of_a_variable_is_read_or_refused(kind: Kind[Any], text: str) -> None:
    try:
        kind.parse(kind.from_text(text))
    except ValueError as refusal:
        assert str(refusal)


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (kinds.PORT, True, "must be a port from 1 to 65535, or 0 for off"),
        (kinds.PORT, 65536, "must be a port"),
        (kinds.PORT, "443", "must be a port"),
        (kinds.DURATION, 30, "must be a time with its unit"),
        (kinds.DURATION, True, "must be a time"),
        (kinds.DURATION, "99999d", "must be from 0s to 3650d"),
        (kinds.SOME_SIZE, "0", "more than 0"),
        (kinds.SOME_SIZE, 100, "with its unit"),
        (kinds.PATH, 5, "must be in quotes"),
        (kinds.PATH, "~/x", 'without "~"'),
        (kinds.PATH, "", "must be a path"),
        (kinds.BOOL, "yes", "must be true or false"),
        (kinds.enum_kind("a", "b", "c"), "d", 'must be "a", "b" or "c"'),
        (kinds.list_kind(kinds.HOST), "quay.io", "must be a list"),
        (kinds.nonempty(kinds.list_kind(kinds.HOST)), [], "at least one"),
        (kinds.or_word("auto", kinds.ADDRESS), "x", 'or "auto"'),
    ],
)
def test_what_is_refused(kind: Kind[Any], raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.parse(raw)


def test_zero_needs_neither_unit_nor_quotes() -> None:
    assert kinds.DURATION.parse(0) == 0.0
    assert kinds.SIZE.parse(0) == 0


def test_a_list_names_the_item_that_is_wrong() -> None:
    with pytest.raises(ItemError) as caught:
        kinds.list_kind(kinds.HOST).parse(["quay.io", "a b"])
    assert caught.value.item == "a b"


def test_a_list_drops_doubles() -> None:
    assert kinds.list_kind(kinds.HOST).parse(["Quay.io", "a", "quay.io"]) == ("quay.io", "a")


def test_variables_become_toml() -> None:
    assert kinds.PORT.parse(kinds.PORT.from_text("443")) == 443
    assert kinds.BOOL.parse(kinds.BOOL.from_text("False")) is False
    assert kinds.list_kind(kinds.HOST).from_text(" a, b,") == ["a", "b"]


def test_the_empty_text_is_none() -> None:
    kind = kinds.or_empty(kinds.PATH)
    assert kind.parse("") is None
    assert kind.render(None) == ""
    assert kind.parse("/x") == Path("/x")


def test_a_field_carries_its_kind() -> None:
    @dataclass(frozen=True)
    class Section:
        port: int = kinds.setting(1, kinds.PORT)
        host: str | None = kinds.optional(kinds.HOST)

    assert Section() == Section(1, None)
    assert [kinds.kind_of(item.metadata) for item in fields(Section)] == [kinds.PORT, kinds.HOST]


def test_long_values_are_cut_in_messages() -> None:
    assert kinds.quoted("x" * 200) == '"' + "x" * 76 + "..."
    assert kinds.quoted("a\nb") == '"a\\nb"'
