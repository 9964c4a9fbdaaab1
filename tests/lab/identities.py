"""Who asks: what a client shows a registry, found the way real clients find it, by hand and on connections kept.

Decides how a client comes from a challenge to a credential. What a credential is good for is for the tests to say.
"""

import json
import re
import threading
from base64 import b64encode
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlencode, urlsplit

from tests.lab import world
from tests.lab.clients import Credentials
from tests.lab.contents import ANY_MANIFEST
from tests.lab.wire import Line, Reply, Wire

type Shown = dict[str, str]
"""What a client shows: a header field, or none."""
type Begin = Literal["ping", "manifest"]
"""Where a client hears the challenge: docker and podman at the ping, containerd at the manifest that it wants."""


def basic(login: tuple[str, str]) -> Shown:
    return {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"}


class Lines:
    """Connections to any host, kept: a set of them for each thread."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._mine = threading.local()
        self._all: list[Line] = []

    def ask(self, host: str, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Reply:
        kept: dict[str, Line] = self._mine.__dict__.setdefault("kept", {})
        if host not in kept:
            kept[host] = Line(self._wire, host)
            self._all.append(kept[host])
        try:
            return kept[host].ask(target, headers, method=method)
        except BaseException:
            kept[host].close()  # the next request gets a connection of its own
            raise

    def close(self) -> None:
        for line in self._all:
            line.close()


def way_in(
    lines: Lines, repository: world.Repository, login: Credentials = None, begin: Begin = "ping"
) -> Shown | Reply:
    """What the client shows from then on; or the answer that has kept it out."""
    target, method = ("/v2/", "GET") if begin == "ping" else (repository.target(f"manifests/{world.TAG}"), "HEAD")
    first = lines.ask(repository.host, target, ANY_MANIFEST, method=method)
    if first.status == 200:
        return {}  # nobody has asked who it is
    if first.status != 401:
        return first
    scheme, _, rest = first.headers["WWW-Authenticate"].partition(" ")
    if scheme.lower() == "basic":
        return basic(login) if login else {}
    told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = urlsplit(told["realm"])
    assert (realm.scheme, realm.query) == ("https", ""), told
    query = urlencode({"service": told["service"], "scope": f"repository:{repository.path}:pull"})
    answer = lines.ask(realm.netloc, f"{realm.path}?{query}", basic(login) if login else None)
    if answer.status != 200:
        return answer
    return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}
