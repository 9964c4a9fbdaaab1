"""A token service on loopback that knows users, identity tokens and what it has given out, with faults on demand.

`lenient` services give a token that opens nothing to whoever shows a wrong password, as some real ones do; the others
answer 401. A token given to one of `readers` opens the private repositories of `registry`.
"""

import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from tests.fakes.registry import FakeRegistry

REFUSAL = b'{"details":"incorrect username or password"}\n'


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class FakeTokens:
    """State and faults of one token service."""

    registry: FakeRegistry | None = None
    users: dict[str, str] = field(default_factory=lambda: {"ann": "anns-password", "bob": "bobs-password"})
    identity_tokens: dict[str, str] = field(default_factory=dict)  # token, and whose
    readers: set[str] = field(default_factory=lambda: {"ann"})
    lenient: bool = False
    status: int = 0  # answer with this instead
    gone: bool = False  # closes every connection without an answer
    lasting: float | None = 300  # seconds; None: it does not say
    named: tuple[str, ...] = ("token", "access_token")
    seen: list[Asked] = field(default_factory=list)
    issued: dict[str, str] = field(default_factory=dict)  # token, and to whom; "" for nobody
    url: str = ""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.seen.append(Asked(request.method, request.raw_path, dict(request.headers), form))
        if self.gone and request.transport is not None:
            request.transport.abort()
        if self.status:
            return web.Response(status=self.status, body=b'{"errors":[{"code":"FAULT","message":"injected"}]}')
        user = self._user(request, form)
        if user is None and not self.lenient:
            headers = {"WWW-Authenticate": 'Basic realm="tokens"', "X-Request-Id": str(next(self._numbers))}
            return web.Response(status=401, body=REFUSAL, headers=headers, content_type="application/json")
        token = f"token-{next(self._numbers)}-of-{user}"
        self.issued[token] = user or ""
        if self.registry is not None and user in self.readers:
            self.registry.credentials.add(token)
        body: dict[str, object] = dict.fromkeys(self.named, token)
        if self.lasting is not None:
            body["expires_in"] = self.lasting
        return web.json_response(body, headers={"X-Served-By": "tokens"})

    def _user(self, request: web.Request, form: dict[str, str]) -> str | None:
        """Who asks: "" for nobody, None for somebody with a wrong password."""
        if "refresh_token" in form:
            return self.identity_tokens.get(form["refresh_token"])
        given = (form["username"], form["password"]) if "password" in form else None
        if "Authorization" in request.headers:
            scheme, _, credential = request.headers["Authorization"].partition(" ")
            if scheme != "Basic" or len(credential) % 4:
                return None
            text = base64.b64decode(credential).decode()
            given = (text.partition(":")[0], text.partition(":")[2])
        if given is None:
            return ""
        return given[0] if self.users.get(given[0]) == given[1] else None


@asynccontextmanager
async def token_service(tokens: FakeTokens) -> AsyncIterator[FakeTokens]:
    """Serves it on a port of its own; `url` says where."""
    server = web.ServerRunner(web.Server(tokens.handle), shutdown_timeout=0)  # type: ignore[arg-type]
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    host, port = server.addresses[0][:2]
    tokens.url = f"http://{host}:{port}"
    try:
        yield tokens
    finally:
        await server.cleanup()


def basic(user: str, password: str) -> tuple[str, str]:
    """The field that a client sends."""
    return "Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
