"""What is answered under which path: the pages, the metrics, the CA.

Everything that waits for the disk is done in one thread of its own; what was gathered a moment ago is shown again. The
templates are loaded at the first page, and what encodes certificates when somebody wants one: a box that only
Prometheus visits needs neither.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import web

from entrepot.amounts import ago, human
from entrepot.cache.interface import StoreError
from entrepot.certs.errors import CertsError
from entrepot.web import exposition, figures, images, metrics
from entrepot.web.guard import Handler, dress, guarded, is_loopback
from entrepot.web.settings import WebSettings
from entrepot.web.snapshot import Gatherer, Snapshot

if TYPE_CHECKING:
    from jinja2 import Environment

    from entrepot.web.onboarding import Form

type Kind = Literal["pem", "der", "p7b", "script"]

FRESH: Final = 1.0  # seconds for which what was gathered counts
_LONGEST: Final = 200  # characters of a search
_CSS: Final = "templates/style.css"


@dataclass(slots=True)
class _Kept[T]:
    """What was found out, and when."""

    value: T
    at: float


class Pages:
    """The handlers. `settings` may be replaced while it serves."""

    def __init__(self, settings: WebSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._gatherer = Gatherer(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="looking")
        self._turn = asyncio.Lock()
        self._snapshot: _Kept[Snapshot] | None = None
        self._tags: _Kept[list[images.Tag]] | None = None
        self._templates: Environment | None = None

    def reconfigure(self, settings: WebSettings) -> None:
        """From the next request on."""
        self._settings = self._gatherer.settings = settings
        self._snapshot = None

    def application(self) -> web.Application:
        """All that is served."""
        guard = guarded(lambda: self._settings.allow, lambda: self._settings.hosts)
        app = web.Application(middlewares=[guard], client_max_size=1024)  # type: ignore[list-item]
        app.on_response_prepare.append(dress)
        app.add_routes(
            [
                web.get("/", self.overview),
                web.get("/images", self.held),
                web.get("/metrics", self.measured),
                web.get("/style.css", self.style),
                web.get("/install.sh", self.certificate("script")),
                web.get("/ca.crt", self.certificate("pem")),
                web.get("/ca.der", self.certificate("der")),
                web.get("/ca.p7b", self.certificate("p7b")),
            ]
        )
        return app

    async def close(self) -> None:
        await self._in_thread(self._gatherer.close)
        self._thread.shutdown()

    async def overview(self, request: web.Request) -> web.Response:
        """The first page."""
        snapshot = await self._now()
        shown = figures.overview(snapshot, self._settings)
        return await self._page(
            "overview.html",
            request,
            view=shown,
            mood=figures.worst(shown.trouble),
            transfers=snapshot.run.transfers[:10],
            now=snapshot.now,
            authority=snapshot.authority,
            dns=self._settings.dns_port,
        )

    async def held(self, request: web.Request) -> web.Response:
        """What is held."""
        words = request.query.get("q", "")[:_LONGEST]
        page = int(text) if (text := request.query.get("page", "1")).isdecimal() and len(text) < 7 else 1
        why, found, rows = "", list[images.Tag](), list[images.Row]()
        hidden = 0
        try:
            every = await self._all_tags()
            visible = every if self._sees_private(request) else [one for one in every if one.public]
            hidden = len(every) - len(visible)
            found = images.matching(visible, words)
            part = found[(max(page, 1) - 1) * images.PAGE :][: images.PAGE]
            gatherer = self._gatherer
            rows = await self._in_thread(lambda: images.rows(part, gatherer.records, gatherer.settings.store))
        except StoreError as failure:
            why = str(failure)
        return await self._page(
            "images.html",
            request,
            words=words,
            rows=rows,
            total=len(found),
            page=max(page, 1),
            pages=max(1, -(-len(found) // images.PAGE)),
            hidden=hidden,
            why=why,
            now=time.time(),
        )

    async def measured(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        snapshot = await self._now()
        text = exposition.text(metrics.families(snapshot, self._settings))
        return web.Response(body=text.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})

    async def style(self, request: web.Request) -> web.Response:
        """How pages look."""
        body = files(__package__).joinpath(_CSS).read_bytes()
        fields = {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "max-age=300"}
        return web.Response(body=body, headers=fields)

    def certificate(self, form: Kind) -> Handler:
        """The CA in one of its forms."""

        async def answer(request: web.Request) -> web.StreamResponse:
            certs, host = self._settings.certs, request.host
            try:
                made = await self._in_thread(lambda: _made(form, certs, host))
            except CertsError as failure:
                return web.Response(status=503, text=f"entrepot: {failure}\n")
            fields = {"Content-Type": made.media_type}
            if form != "script":
                fields["Content-Disposition"] = f'attachment; filename="{made.file_name}"'
            return web.Response(body=made.content, headers=fields)

        return answer

    def _sees_private(self, request: web.Request) -> bool:
        audience = self._settings.private_images
        return audience == "allowed" or (audience == "loopback" and is_loopback(request.remote))

    async def _now(self) -> Snapshot:
        async with self._turn:
            if self._snapshot is None or not 0 <= self._clock() - self._snapshot.at < FRESH:
                leaf = await self._settings.leaf()
                found = await self._in_thread(lambda: self._gatherer.gather(leaf))
                self._snapshot = _Kept(found, self._clock())
            return self._snapshot.value

    async def _all_tags(self) -> list[images.Tag]:
        async with self._turn:
            if self._tags is None or not 0 <= self._clock() - self._tags.at < FRESH:
                found = await self._in_thread(lambda: images.tags(self._gatherer.records))
                self._tags = _Kept(found, self._clock())
            return self._tags.value

    async def _page(self, name: str, request: web.Request, **facts: object) -> web.Response:
        if self._templates is None:
            self._templates = await self._in_thread(_templates)
        template = self._templates.get_template(name)
        text = template.render(version=self._settings.version, path=request.path, host=request.host, **facts)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/html; charset=utf-8"})

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _made(form: Kind, certs: Path, host: str) -> "Form":
    from entrepot.certs.rotation import published  # noqa: PLC0415  # see the head of this file
    from entrepot.web import onboarding  # noqa: PLC0415

    found = published(certs)
    match form:
        case "pem":
            return onboarding.pem(found)
        case "der":
            return onboarding.der(found)
        case "p7b":
            return onboarding.p7b(found)
        case "script":
            return onboarding.script(found, host)


def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # see the head of this file

    made = Environment(
        loader=PackageLoader("entrepot.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "human": human,
        "ago": ago,
        "short": figures.short,
        "percent": figures.percent,
    }
    made.globals["part"] = figures.part
    return made
