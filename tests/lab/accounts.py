"""The upstream's users: who has which password, who may read which repository, and the tokens that say so.

Reads `token.crt`, `token.key`, `passwords.json` and `owners.json` in the upstream's folder, the latter two anew each
time. What the tokens are good for, docker-registry decides.
"""

import base64
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.lab import world
from tests.lab.faults import Fault

TOKEN_LIFE = 300  # seconds
LEEWAY = 60  # seconds for which docker-registry takes a token that has ended
SCOPE = re.compile(r"repository:(?P<repository>[^:]+):(?P<actions>[a-z,*]+)")


class Accounts:
    """Of all registries together."""

    def __init__(self, state: Path) -> None:
        self._state = state
        key = serialization.load_pem_private_key((state / "token.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._x5c = [(state / "token.crt").read_text().replace("\n", "").split("-----")[2]]

    def owner(self, repository: str) -> str | None:
        """Who alone may read it; None: everybody whom its registry lets in."""
        owners: dict[str, str] = json.loads((self._state / "owners.json").read_text())
        return owners.get(repository, world.owner(repository))

    def user(self, request: web.BaseRequest, form: Mapping[str, Any]) -> str | None:
        """Who asks: None for anonymous, "" for somebody with a wrong password."""
        given: tuple[str, str]
        if "password" in form:
            given = (str(form.get("username")), str(form["password"]))
        elif "Authorization" in request.headers:
            try:
                login = aiohttp.BasicAuth.decode(request.headers["Authorization"])
            except ValueError:
                return ""
            given = (login.login, login.password)
        else:
            return None
        passwords: dict[str, str] = json.loads((self._state / "passwords.json").read_text())
        return given[0] if passwords.get(given[0]) == given[1] else ""

    async def token(self, request: web.BaseRequest, service: world.TokenService, fault: Fault) -> web.Response:
        """The token service's answer."""
        form = await request.post() if request.method == "POST" else request.query
        user = self.user(request, form)
        if user == "":
            return web.json_response({"details": "incorrect username or password"}, status=401)
        scopes = [scope for value in form.getall("scope", []) for scope in str(value).split()]
        access = []
        for scope in filter(None, (SCOPE.fullmatch(each) for each in scopes)):
            may = self.owner(scope["repository"]) in (None, user)
            allowed = [a for a in scope["actions"].split(",") if may and (a == "pull" or user)]
            access.append({"type": "repository", "name": scope["repository"], "actions": allowed})
        life = fault.get("life", TOKEN_LIFE)
        ends = life - LEEWAY if "life" in fault else life
        token = self._sign(service, user or "", access, ends)
        return web.json_response({"token": token, "access_token": token, "expires_in": life})

    def _sign(self, service: world.TokenService, user: str, access: list[dict[str, Any]], life: int) -> str:
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": self._x5c}
        claims = {
            "iss": service.host,
            "aud": service.service,
            "sub": user,
            "iat": now,
            "nbf": now - 10,
            "exp": now + life,
            "jti": f"{time.time_ns():x}",
            "access": access,
        }
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64url(r.to_bytes(32) + s.to_bytes(32))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
