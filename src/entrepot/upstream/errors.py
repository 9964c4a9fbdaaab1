"""What can go wrong between us and a registry.

    UpstreamError            base; `host` says whom it concerns
     +- Unreachable          no address, no connection, no TLS, or gone before it answered: an outage
     |   +- Untrusted        TLS works but the certificate is not one we trust: an outage that needs an admin
     |   +- Down             not asked at all: it has been found unreachable a moment ago
     +- TimedOut             connecting or waiting for the answer took too long: an outage
     +- Slow                 no answer yet, and the client has waited enough; there may be one later
     +- LoopDetected         the way leads back to ourselves (answer 508)
     +- BadRedirect          a redirect we must not or cannot follow
     |   +- TooManyRedirects
     +- InvalidResponse      what came is not HTTP, or is encoded although we asked for identity
     |   +- TooLarge         more bytes than the caller is ready to hold
     +- BrokenBody           the answer began well and its body broke: resume it

Decides the kinds and keeps secrets out of the texts: messages name a host and a cause, never a URL with its
query. Leaves to the engine which kind is an outage and what a client gets to see.
"""

import os
import ssl

from entrepot.errors import EntrepotError


class UpstreamError(EntrepotError):
    """Base of everything that goes wrong with a registry or on the way to it."""

    def __init__(self, host: str, cause: str) -> None:
        super().__init__(f"{host}: {cause}")
        self.host = host
        self.cause = cause


class Unreachable(UpstreamError):
    """No address, no connection, no TLS handshake, or the connection went away before the answer."""


class Untrusted(Unreachable):
    """The certificate does not verify, or a CA file of ours cannot be read."""


class Down(Unreachable):
    """Nothing was sent: the host is known to be unreachable, and a probe looks for its return."""


class TimedOut(UpstreamError):
    """No connection within `connect_timeout`, or no answer within `read_timeout`."""


class Slow(UpstreamError):
    """No answer within a client's patience; the exchange goes on without it."""


class LoopDetected(UpstreamError):
    """The name leads to one of our own addresses, or the request has passed through us already."""


class BadRedirect(UpstreamError):
    """A redirect without a usable target, or to one that is weaker than what it came from."""


class TooManyRedirects(BadRedirect):
    """More hops than allowed."""


class InvalidResponse(UpstreamError):
    """What came back is not a valid answer."""


class TooLarge(InvalidResponse):
    """A body longer than the limit of `Response.read`."""


class BrokenBody(UpstreamError):
    """A body that was cut, stalled or ended short. `received` bytes of it have been handed out."""

    def __init__(self, host: str, cause: str, *, received: int) -> None:
        super().__init__(host, f"body broke after {received} bytes: {cause}")
        self.received = received


def cause_of(error: BaseException) -> str:
    """A short lower-case cause, made of the parts of an error that cannot hold a URL."""
    # The attributes are there only when OpenSSL made the error.
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {getattr(error, 'verify_message', 'does not verify')}".lower()
    if isinstance(error, ssl.SSLError):
        return f"tls: {getattr(error, 'reason', None) or 'failed'}".lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return type(error).__name__
