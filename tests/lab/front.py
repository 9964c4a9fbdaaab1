"""The upstream's behaviour: token services, content networks with signed addresses, redirects, faults on demand.

Runs as a process of its own in the upstream's machine, behind nginx (TLS) and before six docker-registry processes:

    python -m tests.lab.front STATE_DIR

It reads `faults.json` in that folder, and what `accounts` needs, and writes `requests.jsonl`: one line when a request
arrives and one when its answer is finished, with the number that joins them. Whether there was an Authorization header
is noted, what it said never is; neither are query strings.

What Debian's docker-registry cannot do is done here: lists of referrers, and repositories of one user among those who
may log in with a password.

Faults are ordered in `faults.json`; `faults` says which there are. Beside nginx there is a port of our own with TLS, to
which a fault can send the clients of a registry for its blobs.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from tests.lab import pki, world
from tests.lab.accounts import Accounts
from tests.lab.faults import DIRECT_PORT, Body, Fault, Faults, hindered, host_of, spoiled
from tests.lab.images import blob_path
from yarl import URL

CHUNK = 256 * 1024
SIGNED_URL_LIFE = 60  # seconds
CDN_SECRET = b"entrepot lab"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
REPOSITORY = re.compile(r"/v2/(?P<repository>.+)/(?:manifests|blobs|tags|referrers)/.+")
REFERRERS = re.compile(r"/v2/(?P<repository>.+)/referrers/(?P<digest>sha256:[0-9a-f]{64})")
INDEX = "application/vnd.oci.image.index.v1+json"
NO_REFERRERS = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}


class Log:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._numbers = itertools.count(1)

    def begin(self, request: web.BaseRequest) -> int:
        number = next(self._numbers)
        headers = {name.lower(): value for name, value in request.headers.items()}
        sni = headers.pop("x-lab-sni", "")  # set by nginx
        authorized = headers.pop("authorization", None) is not None
        self._write(
            n=number,
            host=host_of(request),
            method=request.method,
            path=request.path,
            authorization=authorized,
            sni=sni,
            headers=headers,
        )
        return number

    def end(self, number: int, status: int, sent: int) -> None:
        self._write(n=number, status=status, sent=sent)

    def _write(self, **fields: object) -> None:
        self._file.write(json.dumps(fields) + "\n")


class Front:
    def __init__(self, state: Path, session: aiohttp.ClientSession) -> None:
        self._state = state
        self._session = session
        self._log = Log(state / "requests.jsonl")
        self._faults = Faults(state / "faults.json")
        self._accounts = Accounts(state)
        self._registries = {host: registry for host, registry in world.hosts() if registry}
        self._cdns = {each.cdn: each for each in world.REGISTRIES if each.cdn}
        self._tokens = {
            (each.auth.host, each.auth.path): each.auth
            for each in world.REGISTRIES
            if isinstance(each.auth, world.TokenService)
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number = self._log.begin(request)
        answer: web.StreamResponse | None = None
        sent = Sent()
        try:
            fault = self._faults.meet(request)
            await self._faults.hold(fault)
            if "status" in fault:
                answer = web.Response(
                    status=fault["status"], headers=fault.get("headers"), text=fault.get("body", "fault\n")
                )
            else:
                answer = await self._answer(request, fault, sent)
            if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
                sent.bytes = len(answer.body)
            return answer
        finally:
            self._log.end(number, answer.status if answer else 0, sent.bytes)

    async def _answer(self, request: web.BaseRequest, fault: Fault, sent: "Sent") -> web.StreamResponse:
        host, path = host_of(request), request.path
        service = self._tokens.get((host, path))
        if service is not None:
            return await self._accounts.token(request, service, fault)
        if host in self._cdns:
            answer = self._cdn(request, self._cdns[host], fault)
        elif host in self._registries and path.startswith("/blobs/"):  # a redirect that was relative
            answer = self._cdn(request, self._registries[host], fault)
        elif host in self._registries and path.startswith("/v2/"):
            answer = await self._registry(request, self._registries[host], fault)
        else:
            await request.read()
            return web.Response(text=f"<p>{host} has this at {path}</p>\n", content_type="text/html")
        if isinstance(answer, web.Response):
            return answer
        return await self._stream(request, await spoiled(answer, fault), fault, sent)

    # Content networks

    def _signed_url(self, registry: world.Registry, digest: str, fault: Fault) -> str:
        life = -1 if "expired" in fault else SIGNED_URL_LIFE
        path, expires = f"/blobs/{digest}", str(int(time.time()) + life)
        port = f":{DIRECT_PORT}" if "direct" in fault else ""
        place = "" if "relative" in fault else f"https://{registry.cdn}{port}"
        return f"{place}{path}?expires={expires}&signature={self._signature(path, expires)}"

    @staticmethod
    def _signature(path: str, expires: str) -> str:
        return hmac.new(CDN_SECRET, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()

    def _cdn(self, request: web.BaseRequest, registry: world.Registry, fault: Fault) -> web.Response | Body:
        expires = request.query.get("expires", "0")
        if "Authorization" in request.headers and registry.cdn_refuses_authorization:
            return web.Response(status=400, text="<Error><Message>Only one auth mechanism allowed</Message></Error>")
        if request.query.get("signature") != self._signature(request.path, expires) or int(expires) < time.time():
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        name = request.path.rpartition("/")[2]
        if "moved" in fault:
            return web.Response(status=302, headers={"Location": f"./{name}?{request.query_string}"})
        file = blob_path(self._state / "storage" / registry.name, name)
        size = file.stat().st_size
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Cache-Control": "private"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if asked is None or "ignore_range" in fault:
            return Body(200, headers, size, _read(file, 0, size))
        start, stop = int(asked[1]) + fault.get("shift", 0), min(int(asked[2] or size) + 1, size)
        if start >= size:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        there = start + fault.get("from_elsewhere", 0)
        return Body(206, headers, stop - start, _read(file, there, there + stop - start), there)

    # Registries

    async def _registry(self, request: web.BaseRequest, registry: world.Registry, fault: Fault) -> web.Response | Body:
        if registry.auth == "basic" and self._is_foreign(request):
            return web.json_response({"errors": [{"code": "DENIED", "message": "not yours"}]}, status=403)
        if referrers := REFERRERS.fullmatch(request.path):
            return await self._referrers(request, registry, referrers)
        blob = BLOB.fullmatch(request.path)
        if blob and registry.cdn and request.method in ("GET", "HEAD"):
            async with await self._ask(request, registry, "HEAD") as found:
                if found.status in (200, 206):
                    location = self._signed_url(registry, blob["digest"], fault)
                    return web.Response(status=registry.redirect, headers={"Location": location})
        answer = await self._ask(request, registry, request.method)
        if request.method == "HEAD":
            answer.release()
        kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
        return Body(answer.status, kept, answer.content_length, _relay(answer))

    def _is_foreign(self, request: web.BaseRequest) -> bool:
        """Whether somebody with a right password asks for what is another one's."""
        asked = REPOSITORY.fullmatch(request.path)
        owner = self._accounts.owner(asked["repository"]) if asked else None
        return bool(owner and (user := self._accounts.user(request, {})) and user != owner)

    async def _referrers(
        self, request: web.BaseRequest, registry: world.Registry, asked: re.Match[str]
    ) -> web.Response | Body:
        """To whom may have the manifest; everybody else gets what he would be told of that."""
        subject = f"/v2/{asked['repository']}/manifests/{asked['digest']}"
        answer = await self._ask(request, registry, "GET", subject)
        if answer.status not in (200, 404):
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
            return Body(answer.status, kept, answer.content_length, _relay(answer))
        answer.release()
        file = self._state / "referrers" / registry.name / asked["repository"] / asked["digest"]
        body = file.read_bytes() if file.exists() else json.dumps(NO_REFERRERS).encode()
        return web.Response(body=body, content_type=INDEX)

    async def _ask(
        self, request: web.BaseRequest, registry: world.Registry, method: str, path: str | None = None
    ) -> aiohttp.ClientResponse:
        headers = [(key, value) for key, value in request.headers.items() if key.lower() not in HOP_BY_HOP]
        return await self._session.request(
            method,
            URL(f"http://127.0.0.1:{registry.port}{path or request.raw_path}", encoded=True),
            headers=[*headers, ("X-Forwarded-Proto", "https")],
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        )

    async def _stream(self, request: web.BaseRequest, body: Body, fault: Fault, sent: "Sent") -> web.StreamResponse:
        response = web.StreamResponse(status=body.status, headers=body.headers)
        if body.length is not None:
            response.content_length = body.length
        await response.prepare(request)
        if request.method != "HEAD":
            async for chunk in hindered(body, fault, self._faults, request):
                room = len(chunk) if body.length is None else body.length - sent.bytes
                await response.write(chunk)
                if room < len(chunk) and request.transport is not None:  # aiohttp holds back what the length denies
                    request.transport.write(chunk[max(0, room) :])
                sent.bytes += len(chunk)
        await response.write_eof()
        return response


@dataclass(slots=True)
class Sent:
    bytes: int = 0


async def _read(file: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        while start < stop:
            chunk = opened.read(min(CHUNK, stop - start))
            start += len(chunk)
            yield chunk


async def _relay(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_chunked(CHUNK):
            yield chunk


async def main(state: Path) -> None:
    async with aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding", "Content-Type"],
    ) as session:
        front = Front(state, session)
        runner = web.ServerRunner(web.Server(front.handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", world.FRONT_PORT).start()
        await web.TCPSite(runner, "0.0.0.0", DIRECT_PORT, ssl_context=pki.by_name(state, world.addresses())).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
