"""Errors say whom they concern and why, in lower case, and hold no secret."""

import errno
import ssl

import pytest

from entrepot.errors import EntrepotError
from entrepot.upstream import errors
from entrepot.upstream.errors import BrokenBody, Unreachable, Untrusted, UpstreamError, cause_of


def test_a_message_names_host_and_cause() -> None:
    error = Unreachable("quay.io:443", "cannot connect: connection refused")
    assert str(error) == "quay.io:443: cannot connect: connection refused"
    assert error.host == "quay.io:443"


def test_a_broken_body_tells_where_to_resume() -> None:
    error = BrokenBody("cdn.test", "cut", received=12)
    assert error.received == 12
    assert str(error) == "cdn.test: body broke after 12 bytes: cut"


def test_one_except_catches_them_all() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    assert len(kinds) == 12
    assert all(issubclass(kind, UpstreamError) and issubclass(kind, EntrepotError) for kind in kinds)
    assert issubclass(Untrusted, Unreachable)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (TimeoutError(), "timed out"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "tls: failed"),
        (ValueError("https://cdn.test/x?X-Amz-Signature=secret"), "ValueError"),
        (OSError("https://cdn.test/x?X-Amz-Signature=secret"), "OSError"),
    ],
)
def test_causes_are_short_and_quote_nothing(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
