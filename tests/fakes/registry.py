"""A registry that speaks the pull API over HTTP on loopback, with a log and faults on demand.

Repositories listed in `private` want `Authorization: Bearer <credential>` with a credential of `credentials`; every
other repository is public. Blobs are redirected to a signed path ("CDN") when `redirects` is set.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest

CHALLENGE = 'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:{name}:pull"'


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    authorized: bool
    headers: dict[str, str]
    query: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """Applies to requests of `method` whose path contains `path`, `count` times after `skip`."""

    path: str = ""
    method: str = ""
    count: int = 1
    skip: int = 0
    status: int = 0  # answer with this instead
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, then the connection is gone
    flip_at: int | None = None  # offset of a byte that is sent wrong
    hold: asyncio.Event | None = None  # wait for this after `hold_after` bytes
    hold_after: int = 0
    drop_headers: tuple[str, ...] = ()
    ignore_range: bool = False


@dataclass
class Quota:
    """As Docker Hub counts: GETs of manifests are taken off, HEADs only told."""

    limit: int = 100
    window: int = 21_600  # seconds
    source: str = "192.0.2.7"
    spent: int = 0

    def takes(self, method: str) -> bool:
        if method == "GET" and self.spent >= self.limit:
            return False
        self.spent += method == "GET"
        return True

    def told(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": f"{self.limit};w={self.window}",
            "RateLimit-Remaining": f"{self.limit - self.spent};w={self.window}",
            "Docker-RateLimit-Source": self.source,
        }


class FakeRegistry:
    """State, log and faults of one registry."""

    def __init__(self) -> None:
        self.tags: dict[tuple[str, str], Digest] = {}
        self.manifests: dict[tuple[str, Digest], tuple[bytes, str]] = {}
        self.blobs: dict[tuple[str, Digest], bytes] = {}
        self.private: set[str] = set()
        self.credentials: set[str] = {"good"}
        self.challenge = CHALLENGE  # for private repositories
        self.anonymous_token = ""  # what `/token` gives to nobody
        self.redirects = False
        self.cdn = ""  # where redirects lead: the URL of another one of these; empty: itself
        self.quota: Quota | None = None
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.url = ""
        self.pages: dict[str, tuple[bytes, dict[str, str]]] = {}  # lists, by path and query: body and fields
        self.silent: asyncio.Event | None = None  # nothing is answered before this is set
        self.connections = Connections(self)
        self._new = asyncio.Condition()

    def push_blob(self, repository: str, content: bytes) -> Digest:
        digest = Digest.of(content)
        self.blobs[repository, digest] = content
        return digest

    def push_manifest(
        self, repository: str, body: bytes, media_type: str = mediatypes.OCI_MANIFEST, tag: str | None = None
    ) -> Digest:
        digest = Digest.of(body)
        self.manifests[repository, digest] = body, media_type
        if tag:
            self.tags[repository, tag] = digest
        return digest

    def requests(self, part: str = "") -> list[str]:
        """What was asked since the last `forget`, as "METHOD path", if the path contains `part`."""
        return [str(seen) for seen in self.seen if part in seen.path]

    async def arrived(self, part: str) -> None:
        """Returns once a request with `part` in its path has come."""
        async with self._new:
            await self._new.wait_for(lambda: self.requests(part))

    def forget(self) -> None:
        self.seen.clear()

    def note(self, request: web.Request) -> None:
        """Into the log."""
        headers = dict(request.headers)
        self.seen.append(Seen(request.method, request.path, "Authorization" in headers, headers, request.query_string))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.note(request)
        async with self._new:
            self._new.notify_all()
        if self.silent is not None:
            await self.silent.wait()
        fault = self._fault(request)
        if fault is not None and fault.status:
            body = b'{"errors":[{"code":"FAULT","message":"injected"}]}'
            return web.Response(status=fault.status, headers=fault.headers, body=body)
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        match request.path.split("/"):
            case ["", "token"] if self.anonymous_token and "Authorization" not in request.headers:
                return web.json_response({"token": self.anonymous_token})
            case ["", "v2", ""]:
                return web.json_response({})
            case ["", "v2", *name, "manifests", reference]:
                return await self._manifest(request, "/".join(name), reference, fault)
            case ["", "v2", *name, "blobs", digest]:
                return await self._blob(request, "/".join(name), Digest.parse(digest), fault)
            case ["", "v2", *_, "tags", "list"] | ["", "v2", *_, "referrers", _] if request.path_qs in self.pages:
                body, fields = self.pages[request.path_qs]
                return await self._send(request, 200, {"Content-Type": "application/json", **fields}, body, fault)
            case ["", "cdn", digest]:
                return await self._content(request, Digest.parse(digest), fault)
            case _:
                return web.Response(status=404, text="no such page")

    def _refusal(self, request: web.Request) -> web.Response | None:
        name = request.path.removeprefix("/v2/")
        for kind in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
            name = name.partition(kind)[0]
        if name not in self.private:
            return None
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and credential in self.credentials:
            return None
        return web.Response(
            status=401,
            headers={"WWW-Authenticate": self.challenge.format(name=name)},
            body=b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
            content_type="application/json",
        )

    async def _manifest(
        self, request: web.Request, name: str, reference: str, fault: Fault | None
    ) -> web.StreamResponse:
        if self.quota is not None and not self.quota.takes(request.method):
            body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your pull rate limit"}]}'
            return web.Response(status=429, headers=self.quota.told(), body=body, content_type="application/json")
        digest = Digest.parse(reference) if ":" in reference else self.tags.get((name, reference))
        if digest is None or (name, digest) not in self.manifests:
            body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
            return web.Response(status=404, body=body, content_type="application/json")
        body, media_type = self.manifests[name, digest]
        headers = {"Docker-Content-Digest": str(digest), "Content-Type": media_type, "ETag": f'"{digest}"'}
        headers |= self.quota.told() if self.quota is not None else {}
        if request.headers.get("If-None-Match") == f'"{digest}"':
            return web.Response(status=304, headers=headers)
        return await self._send(request, 200, headers, body, fault)

    async def _blob(self, request: web.Request, name: str, digest: Digest, fault: Fault | None) -> web.StreamResponse:
        if (name, digest) not in self.blobs:
            body = b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}'
            return web.Response(status=404, body=body, content_type="application/json")
        if self.redirects:
            return web.Response(status=307, headers={"Location": f"{self.cdn}/cdn/{digest}?X-Signature=abc"})
        return await self._content(request, digest, fault)

    async def _content(self, request: web.Request, digest: Digest, fault: Fault | None) -> web.StreamResponse:
        content = next(blob for (_, known), blob in self.blobs.items() if known == digest)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        asked = request.headers.get("Range")
        if asked is None or (fault is not None and fault.ignore_range):
            return await self._send(request, 200, headers, content, fault)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(content)) if last else len(content)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return await self._send(request, 206, headers, content[start:stop], fault)

    async def _send(
        self, request: web.Request, status: int, headers: dict[str, str], body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        fault = fault or Fault()
        headers = {name: value for name, value in headers.items() if name not in fault.drop_headers}
        response = web.StreamResponse(status=status, headers={**headers, **fault.headers})
        response.content_length = len(body)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if fault.flip_at is not None:
            body = body[: fault.flip_at] + bytes([body[fault.flip_at] ^ 1]) + body[fault.flip_at + 1 :]
        if fault.hold is not None:
            await response.write(body[: fault.hold_after])
            body = body[fault.hold_after :]
            await fault.hold.wait()
        if fault.cut_after is not None:
            await response.write(body[: fault.cut_after])
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write(body)
        await response.write_eof()
        return response

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.path not in request.path or fault.method not in {"", request.method} or not fault.count:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.count -= 1
            return fault
        return None


class Connections:
    """The network side of a registry: on a port of its own, which stays its own while nobody listens."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry
        self._server: web.ServerRunner | None = None
        self._reserved: socket.socket | None = None

    async def plug_in(self) -> None:
        """Takes connections, for ever at the same address."""
        if self._reserved is None:
            self._reserved = _bound(("127.0.0.1", 0))
            self._registry.url = f"http://127.0.0.1:{self._reserved.getsockname()[1]}"
        listening = _bound(self._reserved.getsockname())
        handler: Any = self._registry.handle
        self._server = web.ServerRunner(web.Server(handler), shutdown_timeout=0)
        await self._server.setup()
        await web.SockSite(self._server, listening).start()

    async def unplug(self) -> None:
        """Refuses connections and drops those there are."""
        server, self._server = self._server, None
        if server is not None:
            await server.cleanup()

    async def close(self) -> None:
        await self.unplug()
        if self._reserved is not None:
            self._reserved.close()


def _bound(address: tuple[str, int]) -> socket.socket:
    """Several may be, to one address, as long as only one listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    return sock


@asynccontextmanager
async def running(configure: Callable[[FakeRegistry], Any] = lambda registry: None) -> AsyncIterator[FakeRegistry]:
    """A registry on a port of its own; `url` says where."""
    registry = FakeRegistry()
    configure(registry)
    await registry.connections.plug_in()
    try:
        yield registry
    finally:
        await registry.connections.close()
