"""Header fields: order and duplicates kept, names without case, bytes given back unchanged."""

from hypothesis import given
from hypothesis import strategies as st

from entrepot.headers import Headers

PAIRS = [("Accept", "a"), ("X-One", "1"), ("accept", "b")]
NAMES = st.text("aAbB-", min_size=1, max_size=4)
FIELDS = st.lists(st.tuples(NAMES, st.text(max_size=5)), max_size=8)


def test_order_spelling_and_duplicates_stay() -> None:
    assert list(Headers(PAIRS)) == PAIRS


def test_a_generator_can_be_given() -> None:
    headers = Headers(pair for pair in PAIRS)
    assert list(headers) == list(headers) == PAIRS
    assert len(headers) == 3


def test_get_gives_the_first_whatever_the_case() -> None:
    assert Headers(PAIRS).get("ACCEPT") == "a"
    assert Headers(PAIRS).get("missing") is None
    assert Headers(PAIRS).get("missing", "x") == "x"


def test_get_all_gives_every_line_in_order() -> None:
    assert Headers(PAIRS).get_all("Accept") == ["a", "b"]
    assert Headers(PAIRS).get_all("missing") == []


def test_what_get_all_gives_is_the_callers_own() -> None:
    headers = Headers(PAIRS)
    headers.get_all("accept").clear()
    assert headers.get_all("accept") == ["a", "b"]


def test_membership() -> None:
    assert "ACCEPT" in Headers(PAIRS)
    assert "missing" not in Headers(PAIRS)
    assert 7 not in Headers(PAIRS)


def test_without_drops_every_line_of_the_name() -> None:
    assert list(Headers(PAIRS).without("ACCEPT")) == [("X-One", "1")]


def test_with_replaces_in_place_and_leaves_one() -> None:
    assert list(Headers(PAIRS).with_("ACCEPT", "c")) == [("ACCEPT", "c"), ("X-One", "1")]


def test_with_appends_what_was_not_there() -> None:
    assert list(Headers(PAIRS).with_("New", "n")) == [*PAIRS, ("New", "n")]


def test_adding_keeps_what_is_there() -> None:
    assert Headers(PAIRS).adding("accept", "c").get_all("accept") == ["a", "b", "c"]


def test_changes_leave_the_original_alone() -> None:
    headers = Headers(PAIRS)
    headers.without("accept"), headers.with_("accept", "z"), headers.adding("accept", "z")
    assert list(headers) == PAIRS


def test_equal_only_with_the_same_fields_in_the_same_order() -> None:
    assert Headers(PAIRS) == Headers(list(PAIRS))
    assert hash(Headers(PAIRS)) == hash(Headers(list(PAIRS)))
    assert Headers(PAIRS) != Headers(reversed(PAIRS))
    assert Headers(PAIRS) != PAIRS


def test_repr_shows_no_value() -> None:
    text = repr(Headers([("Authorization", "Bearer secret")]))
    assert "Authorization" in text
    assert "secret" not in text


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=5))
def test_bytes_survive_the_trip(pairs: list[tuple[bytes, bytes]]) -> None:
    assert Headers.from_raw(pairs).raw == tuple(pairs)


@given(FIELDS, NAMES)
def test_lookups_agree_with_the_list(pairs: list[tuple[str, str]], name: str) -> None:
    headers = Headers(pairs)
    expected = [value for key, value in pairs if key.lower() == name.lower()]
    assert headers.get_all(name) == expected
    assert headers.get(name) == (expected[0] if expected else None)
    assert (name in headers) == bool(expected)
    assert headers.with_(name, "v").get_all(name) == ["v"]
    assert name not in headers.without(name)
