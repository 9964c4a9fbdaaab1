"""Heads of requests and responses."""

import pytest
from hypothesis import given, strategies

from entrepot.addons.http1 import host_of, parse_head, response_head
from entrepot.engine.messages import Answer
from entrepot.headers import Headers

SIMPLE = b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\nAccept: a\r\nAccept: b\r\n\r\n"


def test_a_simple_head() -> None:
    head = parse_head(SIMPLE)
    assert head is not None
    assert (head.method, head.target, head.keep_alive, head.simple) == ("GET", "/v2/", True, True)
    assert head.headers.get_all("accept") == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "keep_alive"),
    [("HTTP/1.1\r\nConnection: close", False), ("HTTP/1.0", False), ("HTTP/1.0\r\nConnection: keep-alive", True)],
)
def test_keep_alive(line: str, keep_alive: bool) -> None:
    head = parse_head(f"GET / {line}\r\n\r\n".encode())
    assert head is not None
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v2/ HTTP/1.1\r\nHost: q\r\nContent-Length: 1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: q\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: q\r\nExpect: 100-continue\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: q\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET https://q/v2/ HTTP/1.1\r\nHost: q\r\n\r\n",
        b"CONNECT q:443 HTTP/1.1\r\nHost: q\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: q\r\n\r\n",
    ],
)
def test_what_is_left_to_mitmproxy(data: bytes) -> None:
    head = parse_head(data)
    assert head is not None
    assert not head.simple


FORM = b"Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (FORM + b"\r\nContent-Length: 65536", 65_536),
        (FORM + b"; charset=utf-8\r\nContent-Length: 7", 7),
        (FORM.upper() + b"\r\ncontent-length: 7", 7),
    ],
)
def test_a_small_form_is_simple(fields: bytes, length: int) -> None:
    head = parse_head(b"POST /token HTTP/1.1\r\nHost: q\r\n" + fields + b"\r\n\r\n")
    assert head is not None
    assert (head.simple, head.form, head.keep_alive) == (True, length, True)


@pytest.mark.parametrize(
    "data",
    [
        b"POST /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 65537\r\n\r\n",
        b"POST /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n",
        b"POST /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 7\r\nContent-Encoding: gzip\r\n\r\n",
        b"POST /token HTTP/1.1\r\nHost: q\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n",
        b"PUT /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 7\r\n\r\n",
        b"GET /token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 7\r\n\r\n",
        b"POST https://q/token HTTP/1.1\r\nHost: q\r\n" + FORM + b"\r\nContent-Length: 7\r\n\r\n",
    ],
)
def test_other_bodies_are_left_to_mitmproxy(data: bytes) -> None:
    head = parse_head(data)
    assert head is not None
    assert not head.simple


@pytest.mark.parametrize(
    "data",
    [
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost : q\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n: q\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_what_is_not_http(data: bytes) -> None:
    assert parse_head(data) is None


@given(strategies.binary(max_size=300))
def test_any_bytes_give_a_head_or_none(data: bytes) -> None:
    parse_head(data + b"\r\n\r\n")


@given(strategies.binary(max_size=60))
def test_any_field_value_gives_a_head_or_none(value: bytes) -> None:
    parse_head(b"GET /v2/ HTTP/1.1\r\nHost: q\r\nX: " + value + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "name"),
    [("quay.io", "quay.io"), ("QUAY.io:443", "quay.io"), ("quay.io.", "quay.io"), ("[::1]", "[::1]"), ("a:b", "a:b")],
)
def test_host(host: str, name: str) -> None:
    assert host_of(Headers([("host", host)])) == name


def test_there_is_exactly_one_host() -> None:
    assert host_of(Headers()) is None
    assert host_of(Headers([("Host", "a"), ("host", "a")])) is None


def test_a_response_head() -> None:
    answer = Answer(206, Headers([("Content-Type", "a/b"), ("Content-Range", "bytes 0-1/5")]))
    assert response_head(answer, length=2, keep_alive=True, now=0.0) == (
        b"HTTP/1.1 206 Partial Content\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/5\r\n"
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n"
    )


def test_a_body_of_unknown_length_is_chunked_and_304_has_none() -> None:
    assert b"Transfer-Encoding: chunked\r\n" in response_head(
        Answer(200, Headers()), length=None, keep_alive=False, now=0.0
    )
    head = response_head(Answer(304, Headers()), length=0, keep_alive=False, now=0.0)
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
