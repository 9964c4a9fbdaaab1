"""Tags under control: held ones, and names of what a tag was (DESIGN rule 7).

Decides what takes the place of a tag's ordinary answer. A held tag is answered by its digest, without upstream being
asked what the tag is: for whom and from where that digest may come is as for any digest, so nothing private gets to
anyone by it, and nothing of another repository. A tag of which an order says that it is held, but not at what, is held
as it is first seen. `TAG.20261124` is answered when upstream has no such tag, or cannot be asked, by what TAG was then.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from entrepot.cache.interface import Records
from entrepot.engine.dated import Dated, dated
from entrepot.engine.digestmanifests import NOT_FOUND
from entrepot.engine.history import History, Move, at, digest_of
from entrepot.engine.keeping import Keeping
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.pins import NEW_TAGS, Pin, Pins
from entrepot.engine.policy import Policy
from entrepot.engine.tags import NO_SIZE, TagRecord, Tags
from entrepot.engine.upstreams import trouble
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.mediatypes import accepts
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.errors import UpstreamError

FROM_HERE: Final = frozenset({"hit", "proved", "stale"})  # verdicts
OWN_TAG: Final = '"a tag of upstream\'s own"'

type Tracked = Callable[[], Awaitable[Answer]]
"""The ordinary answer for the tag: from its record, or as upstream has it."""

type OnHeld = Callable[[PullRequest, str, Digest], None]
"""Told of a held manifest, and its repository, that a client has just been given."""


def _unheard(request: PullRequest, repository: str, digest: Digest) -> None:
    pass


class ByDigest(Protocol):
    """The answer for a manifest by digest; `kept`: it is not lost when upstream has it no more."""

    async def __call__(
        self, request: PullRequest, route: ManifestRoute, digest: Digest, *, kept: bool = False
    ) -> Answer: ...


class Controlled:
    """Answers requests for tags, or lets them be answered. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        tags: Tags,
        history: History,
        by_digest: ByDigest,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._tags, self._history, self._by_digest, self._clock = tags, history, by_digest, clock
        self._pins, self._keeping = Pins(records), Keeping(records)
        self.policy = policy
        self.on_held: OnHeld = _unheard

    async def answer(self, request: PullRequest, route: ManifestRoute, tag: str, tracked: Tracked) -> Answer:
        """Raises what `tracked` raises."""
        if (pin := self._pin(request, route, tag)) is not None:
            return await self._held(request, route, tag, pin, tracked)
        if (named := dated(tag)) is not None:
            return await self._dated(request, route, named, tracked)
        return await tracked()

    def _pin(self, request: PullRequest, route: ManifestRoute, tag: str) -> Pin | None:
        name = request.registry.name
        if (pin := self._pins.of(name, route.repository, tag)) is not None:
            return pin
        if not self.policy.holds_new(request.registry) or self._tags.is_known(request, route):
            return None
        if self._pins.exact(name, route.repository, tag) is not None:  # released: not new any more
            return None
        return Pin(at=self._clock(), by="configuration", why="new tags are held", source=NEW_TAGS)

    # held tags

    async def _held(self, request: PullRequest, route: ManifestRoute, tag: str, pin: Pin, tracked: Tracked) -> Answer:
        digest = pin.digest_for(self._class(request, route)) or self._known(request, route)
        if digest is not None and pin.pending and (moved := await self._moved_on(request, route, tag, pin, tracked)):
            return moved
        if digest is None:
            answer = await tracked()
            if (first := _digest(answer)) is not None and answer.verdict != "stale":
                await self._hold(request, route, tag, replace(pin, digest=str(first)))
                await self._note(request, route, tag, first, answer, "hold", pin.by)
            return answer
        if not pin.digest:
            await self._hold(request, route, tag, replace(pin, digest=str(digest)))
        answer = await self._of_digest(request, route, digest, kept=True)
        if answer.verdict not in FROM_HERE:
            return answer
        if self.policy.prefetches(request.registry):
            self.on_held(request, route.repository, digest)
        return _marked(answer, "held", _why(pin, answer), "held")

    async def _moved_on(
        self, request: PullRequest, route: ManifestRoute, tag: str, pin: Pin, tracked: Tracked
    ) -> Answer | None:
        """As upstream has it now, where it is held from now on; None if upstream does not say."""
        try:
            answer = await tracked()
        except EntrepotError:
            return None
        if (digest := _digest(answer)) is None or answer.verdict == "stale":
            return None
        pin = replace(pin, digest=str(digest), classes={}, pending=False)
        await self._hold(request, route, tag, pin)
        await self._note(request, route, tag, digest, answer, "promote", pin.by)
        return answer

    async def _hold(self, request: PullRequest, route: ManifestRoute, tag: str, pin: Pin) -> None:
        """Kept before it is said, so that no process takes the tag for new, or for waiting, any more."""
        name = request.registry.name
        await self._pins.put(name, route.repository, tag, pin)
        await self._keeping.keep(name, route.repository, pin.digests())

    async def _note(
        self, request: PullRequest, route: ManifestRoute, tag: str, digest: Digest, answer: Answer, act: str, by: str
    ) -> None:
        """The record of the tag is what clients get, also when this one has only asked what that is (HEAD)."""
        key, now, name = self._tags.key(request, route), self._clock(), request.registry.name
        record = self._tags.get(key)
        size = NO_SIZE if answer.length is None else answer.length
        kind = answer.headers.get("content-type", "")
        if record is None or record.digest != digest:
            await self._tags.put(key, request, route, TagRecord(digest, kind, size, now, now))
        move = Move(str(digest), kind, size, now, now, now, act, by, request.client)
        limit = self.policy.history_of(request.registry)
        await self._history.ordered(name, route.repository, tag, key, move, limit)

    async def _of_digest(self, request: PullRequest, route: ManifestRoute, digest: Digest, *, kept: bool) -> Answer:
        """As if the client had asked for the digest: upstream is asked for that too, never for the tag."""
        instead = ManifestRoute(route.repository, digest)
        return await self._by_digest(replace(request, route=instead), instead, digest, kept=kept)

    def _known(self, request: PullRequest, route: ManifestRoute) -> Digest | None:
        """What the tag is in the records."""
        if (record := self._tags.get(self._tags.key(request, route))) is not None:
            return record.digest
        return next((record.digest for record in self._tags.others(request, route)), None)

    def _class(self, request: PullRequest, route: ManifestRoute) -> str:
        return self._tags.key(request, route).rpartition("/")[2]

    # names of what a tag was

    async def _dated(self, request: PullRequest, route: ManifestRoute, named: Dated, tracked: Tracked) -> Answer:
        move = self._then(request, ManifestRoute(route.repository, named.tag), named)
        if move is None:
            return await tracked()
        try:
            answer = await tracked()
        except Refused as refusal:
            if refusal.status != NOT_FOUND and trouble(refusal) is None:
                raise
        except UpstreamError:
            pass
        else:
            if answer.status != NOT_FOUND:
                return _said(answer)
        digest = digest_of(move)
        answer = await self._of_digest(request, route, digest, kept=False)
        why = f"what {named.tag} was"
        if answer.verdict not in FROM_HERE:
            return replace(answer, why=f"{why}, {answer.why}")
        return _marked(answer, answer.verdict, why, "dated")

    def _then(self, request: PullRequest, route: ManifestRoute, named: Dated) -> Move | None:
        """What clients got of the tag at that time: who asks with this `Accept`, or another one who takes the same."""
        if named.start > self._clock():
            return None
        if (move := at(self._history.moves(self._tags.key(request, route)), named.until)) is not None:
            return move
        wanted = request.headers.get_all("accept")
        found = [at(self._history.moves(key), named.until) for key in self._tags.keys(request, route)]
        usable = [move for move in found if move is not None and accepts(wanted, move.media_type)]
        return max(usable, key=lambda move: move.taken, default=None)


def _why(pin: Pin, answer: Answer) -> str:
    held = f"held by {pin.source}" if pin.source else "held"
    return held if answer.why == "held" else f"{held}, {answer.why}"


def _digest(answer: Answer) -> Digest | None:
    """What a tag's answer says that it is."""
    try:
        return Digest.parse(answer.headers.get("docker-content-digest", "")) if answer.status < 400 else None
    except InvalidDigest:
        return None


def _said(answer: Answer) -> Answer:
    """The name would have named what a tag was, had upstream no tag that is called so."""
    status = answer.headers.get("cache-status", "")
    if answer.status >= 400 or "detail=" in status:
        return answer
    return replace(answer, headers=answer.headers.with_("Cache-Status", f"{status}; detail={OWN_TAG}"))


def _marked(answer: Answer, verdict: Verdict, why: str, detail: str) -> Answer:
    fields = Headers(pair for pair in answer.headers if pair[0].lower() != "cache-status")
    stale = "; stale" if answer.verdict == "stale" else ""
    headers = fields.with_("Cache-Status", f"entrepot; hit; detail={detail}{stale}")
    return replace(answer, headers=headers, verdict=verdict, why=why)
