"""Where a redirect leads and what goes along. Rules 2 and 11."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.headers import Headers
from entrepot.upstream.errors import BadRedirect, TooManyRedirects
from entrepot.upstream.redirects import Step, host_of, next_step, origin, printable

HEADERS = Headers([("Authorization", "Bearer t"), ("Cookie", "c=1"), ("Range", "bytes=5-"), ("Accept", "x/y")])
START = Step("GET", "https://quay.io/v2/org/app/blobs/sha256:ab?a=1", HEADERS)


def go(location: str | None, *, start: Step = START, allow_http: bool = False) -> Step:
    return next_step(start, location, allow_http=allow_http)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://cdn.test/x?sig=a%2Fb%20c", "https://cdn.test/x?sig=a%2Fb%20c"),
        ("/other?x=1", "https://quay.io/other?x=1"),
        ("next", "https://quay.io/v2/org/app/blobs/next"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("?b=2", "https://quay.io/v2/org/app/blobs/sha256:ab?b=2"),
        ("https://cdn.test", "https://cdn.test/"),
        ("https://cdn.test/x#part", "https://cdn.test/x"),
        ("https://user:pw@cdn.test/x", "https://cdn.test/x"),
        ("  https://cdn.test/x ", "https://cdn.test/x"),
        ("https://cdn.test/a b?f=\u00e9|", "https://cdn.test/a%20b?f=%C3%A9%7C"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
    ],
)
def test_targets(location: str, url: str) -> None:
    assert go(location).url == url


@pytest.mark.parametrize(
    "location",
    [None, "", "  ", "ftp://cdn.test/x", "data:,x", "https://cdn.test:0/x", "https://cdn.test:99999/", "https://[::1/"],
)
def test_no_target(location: str | None) -> None:
    with pytest.raises(BadRedirect):
        go(location)


@pytest.mark.parametrize(
    "location",
    ["https://cdn01.quay.io/x", "https://quay.io:8443/x", "https://quay.io.evil.test/x", "//evil.test/x"],
)
def test_credentials_never_go_to_another_origin(location: str) -> None:
    step = go(location)
    assert list(step.headers) == [("Range", "bytes=5-"), ("Accept", "x/y")]


@pytest.mark.parametrize("location", ["/x", "https://quay.io/x", "https://QUAY.io:443/x", "https://quay.io./x"])
def test_credentials_stay_at_home(location: str) -> None:
    assert go(location).headers == HEADERS


def test_credentials_once_dropped_do_not_come_back() -> None:
    away = go("https://cdn.test/x")
    assert "authorization" not in go("https://quay.io/y", start=away).headers


def test_another_scheme_is_another_origin() -> None:
    start = Step("GET", "http://registry.test/x", HEADERS)
    assert "authorization" not in go("https://registry.test/x", start=start, allow_http=True).headers


def test_https_is_not_stepped_down() -> None:
    with pytest.raises(BadRedirect, match="down to http"):
        go("http://cdn.test/x")


def test_unless_the_registry_is_http_itself() -> None:
    start = Step("GET", "http://registry.test/x", Headers())
    assert go("http://cdn.test/x", start=start, allow_http=True).url == "http://cdn.test/x"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_method_stays(method: str) -> None:
    assert go("/x", start=Step(method, START.url, HEADERS)).method == method


def test_texts_hold_neither_user_nor_query() -> None:
    url = "https://user:pw@cdn.test:8443/path?X-Amz-Signature=secret"
    assert host_of(url) == "cdn.test:8443"
    assert printable(url) == "https://cdn.test:8443/path"
    assert host_of("https://[::1") == printable("https://[::1") == "?"


def test_a_refusal_quotes_no_query() -> None:
    with pytest.raises(BadRedirect) as caught:
        go("http://cdn.test/x?X-Amz-Signature=secret")
    assert "secret" not in str(caught.value)
    assert caught.value.host == "quay.io"


def test_origins() -> None:
    assert origin(urlsplit("https://A.test/x")) == origin(urlsplit("https://a.test.:443/y")) == ("https", "a.test", 443)
    assert issubclass(TooManyRedirects, BadRedirect)


@given(st.text(max_size=40) | st.from_regex(r"(https?:)?//[^/]{0,9}/.{0,9}"))
def test_a_location_is_followed_or_refused(location: str) -> None:
    try:
        step = go(location)
    except BadRedirect:
        return
    assert step.url.isascii()
    assert step.url.startswith("https://")
    assert not set(step.url) & set(" \r\n\t\0")
