"""What TLS towards a registry trusts: the system's store, plus the CA files of that registry.

Decides how strictly certificates are read. Leaves to the configuration which files belong to which registry.
A context is built once per set of files and off the loop: reading the system's store takes some 10 ms.
"""

import asyncio
import ssl
from pathlib import Path

from entrepot.upstream.errors import Untrusted


class TrustStore:
    """TLS contexts, one per set of CA files."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[Path, ...], asyncio.Future[ssl.SSLContext]] = {}

    async def context(self, ca: tuple[Path, ...], *, host: str) -> ssl.SSLContext:
        """The context that trusts the system's store and `ca`. Raises Untrusted when a file cannot be used."""
        future = self._contexts.get(ca)
        if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
            # A failure is not kept: the admin mends the file and the next request works.
            future = asyncio.ensure_future(asyncio.to_thread(build, ca))
            self._contexts[ca] = future
        try:
            return await asyncio.shield(future)
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(str(path) for path in ca) or "the system's store"
            raise Untrusted(host, f"cannot load ca from {names}: {error}") from error


def build(ca: tuple[Path, ...]) -> ssl.SSLContext:
    """Blocking. The default verify paths are OpenSSL's, so `SSL_CERT_FILE` and `SSL_CERT_DIR` count."""
    context = ssl.create_default_context()
    # Python 3.13 turned strict RFC 5280 checks on; private CAs that every container client accepts fail them
    # (no key identifier, no key usage). A pull that works directly must work through us.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Any certificate in the store is an anchor, as in Go: a CA file may hold just the issuing intermediate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in ca:
        context.load_verify_locations(cafile=path)
    return context
