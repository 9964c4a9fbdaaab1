"""A registry with accounts and a token service of its own: it says who may read what, and who has asked for what.

Every request wants a token for its repository; nobody gets one too, which opens what is public. With `basic` the
password itself is wanted instead.
"""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import override
from urllib.parse import parse_qs

from aiohttp import web
from tests.fakes.registry import FakeRegistry

NOBODY = ""
BODY = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'


class GuardedRegistry(FakeRegistry):
    """Repositories are open to `readers`, `NOBODY` among them for public ones."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = {"box": "box-password", "ann": "ann-password", "bob": "bob-password"}
        self.identity_tokens: dict[str, str] = {}  # token, and whose
        self.readers: dict[str, set[str]] = {}
        self.basic = False
        self.realm = ""  # empty: its own
        self.redirected = ""  # where all is sent
        self.hides = False  # what one may not read is said not to be there
        self.lasting = 300.0  # seconds
        self.token_hold: asyncio.Event | None = None  # the token service waits for it
        self.token_status = 0  # the token service answers with this instead
        self.issued: dict[str, tuple[str, frozenset[str]]] = {}  # token, and whom and what for
        self.dead: set[str] = set()
        self.forms: list[dict[str, list[str]]] = []
        self._numbers = itertools.count()

    def token(self, user: str, repository: str) -> str:
        """As the service gives it, without asking it."""
        made = f"token-{next(self._numbers)}-{user or 'nobody'}"
        self.issued[made] = user, frozenset([repository])
        return made

    def revoke(self, *users: str) -> None:
        """Their tokens have ended."""
        self.dead |= {token for token, (user, _) in self.issued.items() if user in users}

    def by(self, user: str | None, part: str = "/v2/") -> list[str]:
        """What has been asked in the name of `user`; of None: without any credential."""
        return [str(seen) for seen in self.seen if part in seen.path and self._who(seen.headers) == user]

    def _who(self, headers: dict[str, str]) -> str | None:
        scheme, _, credential = headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            return self.issued.get(credential, ("unknown", frozenset()))[0]
        if scheme == "Basic":
            user, _, password = base64.b64decode(credential).decode().partition(":")
            return user if self.accounts.get(user) == password else "wrong"
        return None

    @override
    def _refusal(self, request: web.Request) -> web.Response | None:
        name = request.path.removeprefix("/v2/")
        for kind in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
            name = name.partition(kind)[0]
        if request.path.startswith("/cdn/"):
            return None
        if self.redirected:
            return web.Response(status=307, headers={"Location": self.redirected})
        who, allowed = self._who(dict(request.headers)), False
        if who is not None and who not in {"unknown", "wrong"}:
            token = request.headers["Authorization"].partition(" ")[2]
            scoped = self.basic or (token not in self.dead and name in self.issued[token][1])
            allowed = scoped and bool(self.readers.get(name, set()) & {who, NOBODY})
        if allowed:
            return None
        if who is not None and self.hides:
            return web.Response(status=404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
        challenge = f'Bearer realm="{self.realm or self.url}/token",service="guarded"'
        if self.basic:
            challenge = 'Basic realm="guarded"'
        return web.Response(
            status=401, headers={"WWW-Authenticate": challenge}, body=BODY, content_type="application/json"
        )

    @override
    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/token":
            return await super().handle(request)
        body = await request.text()
        self.note(request)
        self.forms.append(parse_qs(body) if request.method == "POST" else parse_qs(request.query_string))
        if self.token_hold is not None:
            await self.token_hold.wait()
        if self.token_status:
            return web.Response(status=self.token_status, body=BODY)
        user: str | None = NOBODY
        if request.method == "POST":
            user = self.identity_tokens.get(self.forms[-1].get("refresh_token", [""])[0])
        elif "Authorization" in request.headers:
            user = self._who(dict(request.headers))
        if user is None or user in {"wrong", "unknown"}:
            return web.Response(status=401, body=BODY)
        scope = self.forms[-1]["scope"][0]
        token = self.token(user, scope.split(":")[1])
        return web.json_response({"token": token, "expires_in": self.lasting})


@asynccontextmanager
async def guarded() -> AsyncIterator[GuardedRegistry]:
    """One on a port of its own; `url` says where."""
    registry = GuardedRegistry()
    await registry.connections.plug_in()
    try:
        yield registry
    finally:
        await registry.connections.close()
