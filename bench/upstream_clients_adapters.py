"""The HTTP clients under comparison behind one shape, each used as its documentation says.

Whatever is not installed is reported as missing: none of these but the chosen one is a dependency of the project.
"""

import asyncio
import importlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

PIECE = 256 * 1024
"""Bytes asked for per read, for every client that lets one say."""

type OnPiece = Callable[[bytes], None]
type Fields = list[tuple[str, str]]
type Got = tuple[int, Fields]


@dataclass(frozen=True)
class Setup:
    """What a client is made with."""

    ca: Path | None = None
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    read_timeout: float = 30.0
    keep_alive: bool = True


class Adapter(Protocol):
    """One client. `fetch` streams a body into `on_piece` and gives status and header fields as received."""

    async def fetch(
        self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None
    ) -> tuple[int, Fields]: ...

    async def aclose(self) -> None: ...


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _text(pairs: Sequence[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]


def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Aiohttp:
    """aiohttp: a resolver of ours, a context per request."""

    def __init__(self, setup: Setup) -> None:
        aiohttp = _module("aiohttp")

        class Hosts(_module("aiohttp.abc").AbstractResolver):  # type: ignore[misc]
            async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
                return [
                    {
                        "hostname": host,
                        "host": address,
                        "port": port,
                        "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                        "proto": 0,
                        "flags": socket.AI_NUMERICHOST,
                    }
                    for address in setup.hosts[host]
                ]

            async def close(self) -> None: ...

        self._context = _context(setup.ca)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=Hosts(), use_dns_cache=False, limit=0, force_close=not setup.keep_alive
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=setup.read_timeout),
            read_bufsize=PIECE,
        )

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        context = _context(ca) if ca else self._context
        async with self._session.get(url, headers=fields, ssl=context, allow_redirects=False) as response:
            async for piece in response.content.iter_any():
                on_piece(piece)
            return response.status, _text(response.raw_headers)

    async def aclose(self) -> None:
        await self._session.close()


class AiohttpFast(Aiohttp):
    """aiohttp over aiofastnet's transports: TLS straight from the socket, in C."""

    def __init__(self, setup: Setup) -> None:
        _module("aiofastnet").patch_loop()
        super().__init__(setup)


class Entrepot:
    """Our own client, to see what it adds to aiohttp."""

    def __init__(self, setup: Setup) -> None:
        client = _module("entrepot.upstream.client")
        resolver = _module("entrepot.upstream.resolver").Resolver(
            [], lambda: (), clock=asyncio.get_running_loop().time, hosts=setup.hosts
        )
        settings = client.ClientSettings(
            connect_timeout=5.0, read_timeout=setup.read_timeout, via="1.1 bench", user_agent=None, per_host=0
        )
        self._headers = _module("entrepot.headers").Headers
        self._client = client.UpstreamClient(settings, resolver)
        self._ca = setup.ca
        self._keep_alive = setup.keep_alive
        self._remake = lambda: client.UpstreamClient(settings, resolver)

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        trusted = tuple(path for path in (ca or self._ca,) if path is not None)
        async with self._client.open("GET", url, self._headers(fields), ca=trusted) as response:
            async for piece in response.chunks():
                on_piece(piece)
        if not self._keep_alive:
            connector = self._client._session.connector  # no knob for this in the product
            connector._cleanup_handle, connector._conns = None, self._closed(connector._conns)
        return response.status, list(response.headers)

    @staticmethod
    def _closed(connections: Any) -> Any:
        for kept in connections.values():
            for protocol, _ in kept:
                protocol.close()
        connections.clear()
        return connections

    async def aclose(self) -> None:
        await self._client.aclose()


class Httpx:
    """httpx and its continuation httpx2; addresses of ours need a network backend under the pool."""

    package, core = "httpx", "httpcore"

    def __init__(self, setup: Setup) -> None:
        httpx, core = _module(self.package), _module(self.core)
        base = core.AsyncNetworkBackend if hasattr(core, "AsyncNetworkBackend") else object
        real = core.AnyIOBackend()

        class Hosts(base):  # type: ignore[valid-type,misc]
            async def connect_tcp(self, host: str, *args: Any, **kwargs: Any) -> Any:
                failure: Exception | None = None
                for address in setup.hosts.get(host, [host]):
                    try:
                        return await real.connect_tcp(address, *args, **kwargs)
                    except Exception as error:  # as many kinds as back ends
                        failure = error
                raise failure or OSError("no address")

            async def sleep(self, seconds: float) -> None:
                await asyncio.sleep(seconds)

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None if setup.keep_alive else 0)
        transport = httpx.AsyncHTTPTransport(verify=_context(setup.ca), limits=limits, trust_env=False)
        transport._pool._network_backend = Hosts()  # not to be had through a public parameter
        self._client = httpx.AsyncClient(
            transport=transport, timeout=httpx.Timeout(None, connect=5, read=setup.read_timeout), headers={}
        )
        self._client.headers.clear()

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        if ca is not None:
            raise NotImplementedError("trust is a property of the client")
        async with self._client.stream("GET", url, headers=fields, follow_redirects=False) as response:
            async for piece in response.aiter_raw():
                on_piece(piece)
            return response.status_code, _text(response.headers.raw)

    async def aclose(self) -> None:
        await self._client.aclose()


class Httpx2(Httpx):
    package, core = "httpx2", "httpcore2"


class Niquests:
    """niquests on urllib3.future, HTTP/1 only."""

    def __init__(self, setup: Setup) -> None:
        niquests = _module("niquests")
        pairs = [f"{host}:{address}" for host, addresses in setup.hosts.items() for address in addresses]
        self._session = niquests.AsyncSession(
            resolver="in-memory://default/?hosts=" + ",".join(pairs) if pairs else None,
            disable_http2=True,
            disable_http3=True,
            happy_eyeballs=True,
            headers={},
        )
        self._session.headers.clear()
        self._session.trust_env = False
        self._setup = setup

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        trusted = ca or self._setup.ca
        response = await self._session.get(
            url,
            headers=fields if self._setup.keep_alive else [*fields, ("Connection", "close")],
            stream=True,
            allow_redirects=False,
            timeout=(5, self._setup.read_timeout),
            verify=str(trusted) if trusted else True,
        )
        try:
            async for piece in await response.iter_raw(PIECE):
                on_piece(piece)
            return response.status_code, list(response.raw.headers.items())
        finally:
            await response.close()

    async def aclose(self) -> None:
        await self._session.close()


class Pyreqwest:
    """pyreqwest: Rust's reqwest with a runtime thread of its own; addresses and trust belong to the client."""

    def __init__(self, setup: Setup) -> None:
        builder = _module("pyreqwest.client").ClientBuilder()
        builder = builder.http1_only().follow_redirects(False).referer(False).no_proxy()
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        builder = builder.connect_timeout(timedelta(seconds=5)).read_timeout(timedelta(seconds=setup.read_timeout))
        if setup.ca is not None:
            builder = builder.add_root_certificate_pem(setup.ca.read_bytes())
        if not setup.keep_alive:
            builder = builder.pool_max_idle_per_host(0)
        for host, addresses in setup.hosts.items():
            for address in addresses:
                builder = builder.resolve(host, address, 0)  # port 0: the URL's
        self._client = builder.build()

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        if ca is not None:
            raise NotImplementedError("trust is a property of the client")
        request = self._client.get(url)
        for name, value in fields:
            request = request.header(name, value)
        async with request.streamed_read_buffer_limit(2 * PIECE).build_streamed() as response:
            while (piece := await response.body_reader.read(PIECE)) is not None:
                on_piece(cast("bytes", piece))
            return response.status, [(str(name), str(value)) for name, value in response.headers.items()]

    async def aclose(self) -> None:
        await self._client.close()


class Pycurl:
    """libcurl's multi interface driven by the event loop; the glue is what a project would have to own."""

    def __init__(self, setup: Setup) -> None:
        self._curl = _module("pycurl")
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._done: dict[Any, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._multi = self._curl.CurlMulti()
        self._multi.setopt(self._curl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(self._curl.M_TIMERFUNCTION, self._on_timer)

    def _on_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        if what in {self._curl.POLL_IN, self._curl.POLL_INOUT}:
            self._loop.add_reader(fd, self._act, fd, self._curl.CSELECT_IN)
        if what in {self._curl.POLL_OUT, self._curl.POLL_INOUT}:
            self._loop.add_writer(fd, self._act, fd, self._curl.CSELECT_OUT)

    def _on_timer(self, milliseconds: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if milliseconds >= 0:
            self._timer = self._loop.call_later(milliseconds / 1000, self._act, self._curl.SOCKET_TIMEOUT, 0)

    def _act(self, fd: int, events: int) -> None:
        self._multi.socket_action(fd, events)
        _, good, bad = self._multi.info_read()
        for curl in good:
            if not self._done[curl].done():
                self._done[curl].set_result(None)
        for curl, code, message in bad:
            if not self._done[curl].done():
                self._done[curl].set_exception(OSError(f"curl {code}: {message}"))

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        c, setup = self._curl, self._setup
        lines: list[bytes] = []
        curl = c.Curl()
        parts = urlsplit(url)
        curl.setopt(c.URL, url)
        curl.setopt(c.HTTP_VERSION, c.CURL_HTTP_VERSION_1_1)
        curl.setopt(c.HTTPHEADER, ["Accept:", "User-Agent:"] + [f"{name}: {value}" for name, value in fields])
        curl.setopt(c.CONNECTTIMEOUT, 5)
        curl.setopt(c.LOW_SPEED_LIMIT, 1)
        curl.setopt(c.LOW_SPEED_TIME, max(1, round(setup.read_timeout)))  # whole seconds, an average
        curl.setopt(c.BUFFERSIZE, 2 * PIECE)
        curl.setopt(c.NOPROXY, "*")
        if not setup.keep_alive:
            curl.setopt(c.FORBID_REUSE, 1)
        if addresses := setup.hosts.get(parts.hostname or ""):
            listed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
            curl.setopt(c.RESOLVE, [f"{parts.hostname}:{parts.port}:{listed}"])
        if trusted := ca or setup.ca:
            curl.setopt(c.CAINFO, str(trusted))
        curl.setopt(c.HEADERFUNCTION, lines.append)
        curl.setopt(c.WRITEFUNCTION, on_piece)
        self._done[curl] = self._loop.create_future()
        self._multi.add_handle(curl)
        try:
            await self._done[curl]
            pairs = [line.rstrip(b"\r\n").partition(b":") for line in lines[1:] if line.strip()]
            return curl.getinfo(c.RESPONSE_CODE), _text([(name, value.strip()) for name, _, value in pairs])
        finally:
            del self._done[curl]
            self._multi.remove_handle(curl)
            curl.close()

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._multi.close()


class Urllib3Threads:
    """urllib3, blocking, one thread per transfer; the pieces are handed over inside the thread."""

    def __init__(self, setup: Setup) -> None:
        self._urllib3 = _module("urllib3")
        self._setup = setup
        self._pools: dict[tuple[str, int, Path | None], Any] = {}
        self._lock = threading.Lock()

    def _pool(self, url: str, ca: Path | None) -> Any:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        with self._lock:
            if (pool := self._pools.get((host, port, ca))) is None:
                address = self._setup.hosts.get(host, [host])[0]
                timeout = self._urllib3.Timeout(connect=5, read=self._setup.read_timeout)
                common = {"timeout": timeout, "maxsize": 64, "retries": False, "headers": {}}
                if parts.scheme == "https":
                    pool = self._urllib3.HTTPSConnectionPool(
                        address, port, server_hostname=host, assert_hostname=host, ssl_context=_context(ca), **common
                    )
                else:
                    pool = self._urllib3.HTTPConnectionPool(address, port, **common)
                self._pools[host, port, ca] = pool
        return pool

    async def fetch(self, url: str, fields: Fields, on_piece: OnPiece, ca: Path | None = None) -> Got:
        holder: list[Any] = []

        def blocking() -> Got:
            parts = urlsplit(url)
            headers = self._urllib3.HTTPHeaderDict([("Host", parts.netloc), *fields])
            if not self._setup.keep_alive:
                headers.add("Connection", "close")
            pool = self._pool(url, ca or self._setup.ca)
            response = pool.urlopen(
                "GET", parts.path, headers=headers, redirect=False, preload_content=False, decode_content=False
            )
            holder.append(response)
            for piece in response.stream(PIECE, decode_content=False):
                on_piece(piece)
            response.release_conn()
            return response.status, list(response.headers.items())

        try:
            return await asyncio.to_thread(blocking)
        except asyncio.CancelledError:
            for response in holder:
                with suppress(OSError, AttributeError):
                    response._connection.sock.shutdown(socket.SHUT_RDWR)  # no public way to wake the thread
            raise

    async def aclose(self) -> None:
        for pool in self._pools.values():
            pool.close()


ADAPTERS: dict[str, Callable[[Setup], Adapter]] = {
    "aiohttp": Aiohttp,
    "aiohttp+aiofastnet": AiohttpFast,
    "httpx": Httpx,
    "httpx2": Httpx2,
    "niquests": Niquests,
    "pyreqwest": Pyreqwest,
    "pycurl": Pycurl,
    "urllib3 in threads": Urllib3Threads,
    "entrepot (aiohttp)": Entrepot,
}

MODULES = {
    "aiohttp": ("aiohttp",),
    "aiohttp+aiofastnet": ("aiohttp", "aiofastnet"),
    "httpx": ("httpx",),
    "httpx2": ("httpx2",),
    "niquests": ("niquests",),
    "pyreqwest": ("pyreqwest",),
    "pycurl": ("pycurl",),
    "urllib3 in threads": ("urllib3",),
    "entrepot (aiohttp)": ("aiohttp", "entrepot"),
}
"""What has to be installed for each."""
