"""HTTP/1.1 heads: requests in, responses out.

Parses one request head with llhttp (`httptools`), strictly, and writes response heads. Decides only whether a request
is simple enough for the pull layer: no body but a small form, no upgrade, no expectation, origin-form. Everything else
is left to mitmproxy's HTTP layer, malformed requests included.
"""

from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import httptools

from entrepot.engine.messages import Answer
from entrepot.headers import CODEC, Headers

MAX_HEAD: Final = 64 << 10  # bytes of a request head; gcr.io tokens make heads of 10 KiB and more
MAX_FORM: Final = 64 << 10  # bytes; a form for a token holds a password or a token
FORM: Final = "application/x-www-form-urlencoded"
END: Final = b"\r\n\r\n"
BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of one request."""

    method: str
    target: str
    headers: Headers
    keep_alive: bool
    simple: bool  # nothing follows it but `form`, and nothing but an answer is expected
    form: int = 0  # bytes of the form that follows


class _Events:
    __slots__ = ("complete", "fields", "keep_alive", "parser", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = self.keep_alive = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()  # is forgotten when the message is complete

    def on_message_complete(self) -> None:
        self.complete = True


def parse_head(data: bytes) -> Head | None:
    """The head in `data`, which ends with the empty line; None when llhttp does not accept it."""
    events = _Events()
    try:
        events.parser.feed_data(data)
        method = events.parser.get_method().decode("ascii")
    except httptools.HttpParserUpgrade:
        return Head("", "", Headers.from_raw(events.fields), keep_alive=False, simple=False)
    except (httptools.HttpParserError, UnicodeDecodeError):
        return None
    headers = Headers.from_raw(events.fields)
    target = events.target.decode(*CODEC)
    plain = target.startswith("/") and "expect" not in headers and "upgrade" not in headers
    if events.complete or not plain:
        return Head(method, target, headers, events.keep_alive, simple=plain)
    form = _form(method, headers)
    return Head(method, target, headers, events.keep_alive, simple=form > 0, form=form)


def _form(method: str, headers: Headers) -> int:
    """Bytes of the form that the head announces; 0 for another kind of body, or one that is too long."""
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    length = headers.get("content-length") or ""
    if method != "POST" or kind != FORM or "transfer-encoding" in headers or "content-encoding" in headers:
        return 0
    return int(length) if length.isdecimal() and int(length) <= MAX_FORM else 0


def host_of(headers: Headers) -> str | None:
    """The name in `Host`, without port, in lower case; None unless there is exactly one."""
    values = headers.get_all("host")
    if len(values) != 1:
        return None
    name, colon, port = values[0].rpartition(":")
    if not colon or not port.isdigit():
        name = values[0]
    return name.strip().lower().removesuffix(".")


def response_head(answer: Answer, *, length: int | None, keep_alive: bool, now: float | None) -> bytes:
    """Status line and fields; `length` None makes the body chunked. `now` in epoch seconds, None = by the system."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines.append(f"Date: {formatdate(now, usegmt=True)}")
    if answer.status not in {204, 304}:
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    lines.append("Connection: keep-alive" if keep_alive else "Connection: close")
    return "\r\n".join([*lines, "", ""]).encode(*CODEC)
