"""What of a request goes upstream, and the mark by which a loop is seen. Rule 11."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.headers import Headers
from entrepot.upstream.fields import HOP_BY_HOP, end_to_end, is_own, outgoing

VIA = "1.1 entrepot-1a2b3c"


def sent(*pairs: tuple[str, str], user_agent: str | None = None) -> Headers:
    return Headers(outgoing(Headers(pairs), via=VIA, user_agent=user_agent))


def test_fields_of_one_connection_stay_behind() -> None:
    headers = sent(*[(name.title(), "x") for name in sorted(HOP_BY_HOP)], ("Range", "bytes=1-"))
    assert headers.get("range") == "bytes=1-"
    assert not [name for name, _ in headers if name.lower() in HOP_BY_HOP]


def test_fields_that_connection_names_stay_behind() -> None:
    headers = sent(("Connection", "close, X-Private"), ("x-private", "1"), ("X-Public", "2"))
    assert "x-private" not in headers
    assert headers.get("x-public") == "2"


def test_credentials_go_to_the_registry() -> None:
    assert sent(("Authorization", "Bearer t")).get("authorization") == "Bearer t"


def test_credentials_for_a_proxy_do_not() -> None:
    assert "proxy-authorization" not in sent(("Proxy-Authorization", "Basic x"))


def test_identity_is_asked_for_whatever_the_client_wants() -> None:
    assert sent(("Accept-Encoding", "zstd, gzip")).get_all("accept-encoding") == ["identity"]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Expect"])
def test_what_the_connection_writes_is_not_passed_on(name: str) -> None:
    assert name not in sent((name, "1"))


def test_repeated_lines_stay_and_share_one_spelling() -> None:
    headers = sent(("Accept", "a"), ("X", "1"), ("accept", "b"))
    assert [pair for pair in headers if pair[0] in {"Accept", "X"}] == [("Accept", "a"), ("X", "1"), ("Accept", "b")]


def test_the_askers_user_agent_goes_first() -> None:
    assert sent(("User-Agent", "docker/28"), user_agent="entrepot/1").get_all("user-agent") == ["docker/28"]
    assert sent(user_agent="entrepot/1").get("user-agent") == "entrepot/1"
    assert "user-agent" not in sent()


def test_via_is_appended_to_what_is_there() -> None:
    assert sent(("Via", "1.0 a"), ("via", "1.1 b (x)")).get_all("via") == [f"1.0 a, 1.1 b (x), {VIA}"]
    assert sent().get_all("via") == [VIA]


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
def test_a_line_break_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        sent(("X-Any", bad))
    with pytest.raises(ValueError, match="line break"):
        sent((bad, "x"))


def test_end_to_end_keeps_the_rest_of_an_answer() -> None:
    headers = Headers([("Connection", "keep-alive"), ("Keep-Alive", "timeout=5"), ("ETag", '"x"'), ("Via", "1.1 cdn")])
    assert list(end_to_end(headers)) == [("ETag", '"x"'), ("Via", "1.1 cdn")]


@pytest.mark.parametrize(
    "values",
    [
        ["1.1 entrepot-1a2b3c"],
        ["HTTP/1.1 ENTREPOT-1A2B3C"],
        ["1.0 fred, 1.1 entrepot-1a2b3c (comment)"],
        ["1.0 fred", "1.1  entrepot-1a2b3c"],
        ["1.1 a (b, c), 1.1 entrepot-1a2b3c"],
    ],
)
def test_own_entries_are_seen(values: list[str]) -> None:
    assert is_own(values, "entrepot-1a2b3c")


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["1.1 entrepot-ffffff"],
        ["1.1 other (1.1 entrepot-1a2b3c)"],
        ["1.1 other (x, 1.1 entrepot-1a2b3c, y)"],
        ["entrepot-1a2b3c"],
        ["1.1 x-entrepot-1a2b3c"],
    ],
)
def test_entries_of_others_are_not(values: list[str]) -> None:
    assert not is_own(values, "entrepot-1a2b3c")


@given(st.lists(st.text(max_size=30), max_size=4))
def test_anything_can_be_read_and_our_mark_is_found_in_it(values: list[str]) -> None:
    is_own(values, "entrepot-1a2b3c")
    assert is_own([*values, VIA], "entrepot-1a2b3c")
