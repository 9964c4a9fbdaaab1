"""Manifests: held by digest, found by tag.

Decides when a tag's record is believed, when it is checked and what a client gets meanwhile. A manifest is verified
before its first byte is sent (docker, podman, skopeo and crane do not check what a tag gives them themselves).

A tag that has moved is remembered with its new digest only once that is to be taken up (`uptake`): until then the old
one is what a client can still have when upstream throttles or goes away (DESIGN rules 5 to 7). What is held by an
order, or asked for by a date, is decided before, by `controlled`.
"""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from entrepot.cache.interface import Records
from entrepot.engine.admission import REFUSALS, Admission
from entrepot.engine.controlled import Controlled
from entrepot.engine.digestmanifests import DigestManifests
from entrepot.engine.errands import Errands
from entrepot.engine.fields import of_content
from entrepot.engine.flights import Flights
from entrepot.engine.freshmanifests import FreshManifests, question_of
from entrepot.engine.heldmanifests import held_manifest, note_belonging, reply
from entrepot.engine.history import History
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.negatives import TTL as ABSENT_FOR
from entrepot.engine.negatives import Negatives
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.publicness import NOT_FOUND, SAYS_NO
from entrepot.engine.tags import NO_SIZE, TagRecord, Tags
from entrepot.engine.upstreams import HeadRefused, Upstreams, trouble
from entrepot.engine.uptake import AskedTag, Uptake
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.routes import ManifestRoute
from entrepot.tasks import spawn
from entrepot.upstream.errors import UpstreamError

WAITING: Final[tuple[Verdict, str]] = ("held", "cooldown")


class Manifests:
    """Answers requests for manifests."""

    def __init__(
        self,
        records: Records,
        admission: Admission,
        upstreams: Upstreams,
        errands: Errands,
        patience: Patience,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._records, self._admission, self._upstreams, self._clock = records, admission, upstreams, clock
        self._errands, self._patience = errands, patience
        self.tags = Tags(records)
        self.policy = policy
        self._absent = Negatives(clock)
        self._checks: Flights[tuple[str, ...], TagRecord | None] = Flights("check")
        self._fresh = FreshManifests(records, admission, upstreams, errands)
        self._digests = DigestManifests(records, admission, upstreams, errands, self._fresh)
        self.history = History(records)
        self.controlled = Controlled(records, self.tags, self.history, self._by_digest, policy, clock)
        self._uptake = Uptake(
            self.tags,
            self.history,
            policy,
            is_held=lambda digest: self._held(digest) is not None,
            is_pushed=lambda asked: self._has_changed(asked.request, asked.route),
        )

    def reconfigure(self, policy: Policy) -> None:
        """From the next request on."""
        self.policy = self.controlled.policy = self._uptake.policy = policy

    async def answer(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """Raises `Refused`, `UpstreamError`, `StoreError`."""
        try:
            if isinstance(route.reference, Digest):
                return await self._plainly(request, route)
            tracked = partial(self._plainly, request, route)
            return await self.controlled.answer(request, route, route.reference, tracked)
        except Refused as refusal:
            await self._admission.refused(request, route.repository, refusal.answer.status)
            raise

    async def _plainly(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """As nothing but upstream, and what is held, would have it."""
        question = question_of(request, route)
        if (absent := self._absent.get(question)) is not None and not self._has_changed(request, route):
            return absent
        try:
            if isinstance(route.reference, Digest):
                return await self._by_digest(request, route, route.reference)
            return await self._by_tag(request, route, route.reference)
        except Refused as refusal:
            self._absent.note(question, refusal.answer)
            raise

    async def changed(self, registry: Registry, route: ManifestRoute) -> None:
        """Upstream has just accepted a push, or a deletion: what was known of the tag, or of its absence, is over."""
        if not isinstance(route.reference, Digest):
            await self.tags.forget(registry.name, route.repository, route.reference)
        await self._records.put(f"changed/{registry.name}{route.path}", {}, ttl=2 * ABSENT_FOR)

    def _has_changed(self, request: PullRequest, route: ManifestRoute) -> bool:
        """In any process, since an absence that is remembered here."""
        return self._records.get(f"changed/{request.registry.name}{route.path}") is not None

    async def _by_digest(
        self, request: PullRequest, route: ManifestRoute, digest: Digest, *, kept: bool = False
    ) -> Answer:
        return await self._unless_out(request, self._digests.answer(request, route, digest, kept=kept))

    # by tag

    async def _by_tag(self, request: PullRequest, route: ManifestRoute, tag: str) -> Answer:
        now, key = self._clock(), self.tags.key(request, route)
        admitted = self._admission.admits(request, route.repository) or ""
        asked = AskedTag(request, route, tag, key, self.tags.get(key), admitted)
        if asked.record is None and self.policy.cooldown_of(request.registry):
            asked = replace(asked, record=self._given_to_others(asked))
        record = asked.record if admitted else None
        if record and 0 <= now - record.checked < self.policy.tag_ttl(request.registry, route.repository, tag):
            return await self._of_record(asked, record, *(WAITING if record.awaits else ("hit", "fresh")))
        spare = record if record and self._held(record.digest) else None
        if spare and (at_once := self._unasked(asked, spare)) is not None:
            return await self._of_record(asked, spare, *at_once)
        other = spare or (self._given_to_others(asked) if admitted else None)
        if other and self._upstreams.is_down(request):
            return await self._of_record(asked, other, "stale", "upstream is down")
        try:
            if other:
                asking = self._by_asking(asked, spare=spare is not None)
                return await self._patience.within(request.registry, asking)
            return await self._unless_out(request, self._by_asking(asked, spare=False))
        except (Refused, UpstreamError) as failure:
            why = trouble(failure)
            if request.identity.own and isinstance(failure, Refused) and failure.status in SAYS_NO:
                why = "upstream does not know a token of ours"  # it has been asked by nobody
            if why is None or (other := other or self._admitted_meanwhile(asked)) is None:
                raise
            return await self._of_record(asked, other, "stale", why)

    async def _unless_out(self, request: PullRequest, question: Coroutine[object, object, Answer]) -> Answer:
        return await self._patience.unless_out(request.registry.name, [request.registry.upstream], question)

    def _admitted_meanwhile(self, asked: AskedTag) -> TagRecord | None:
        """What is held, if an older yes counts now: this very question has shown that the registry is gone."""
        if self._admission.admits(asked.request, asked.route.repository) is None:
            return None
        if asked.record is not None and self._held(asked.record.digest):
            return asked.record
        return self._given_to_others(asked)

    def _unasked(self, asked: AskedTag, spare: TagRecord) -> tuple[Verdict, str] | None:
        """Verdict and reason for what is held, if nobody waits for upstream; None if the client does."""
        request = asked.request
        if self._upstreams.is_down(request):
            return "stale", "upstream is down"
        may = self._upstreams.may(request, "revalidate", "HEAD")
        if not may and not self._errands.may_share(request, asked.route.repository):
            return "stale", "quota of upstream is short"
        if 0 <= self._clock() - spare.checked < self._served_for(asked):
            spawn(self._refresh(asked), name=f"check {asked.key}")
            return "hit", "being checked"
        return None

    def _served_for(self, asked: AskedTag) -> float:
        """For how many seconds after a check nobody waits for the next one."""
        ttl = self.policy.tag_ttl(asked.request.registry, asked.route.repository, asked.tag)
        return ttl + self.policy.stale_while(asked.request.registry)

    async def _refresh(self, asked: AskedTag) -> None:
        """A check that nobody waits for. If the tag is gone, the next one who asks hears it from upstream."""
        with suppress(EntrepotError):
            try:
                await self._by_asking(asked, spare=True)
            except Refused as refusal:
                await self._admission.refused(asked.request, asked.route.repository, refusal.status)
                if refusal.status == NOT_FOUND and asked.record is not None:
                    due = replace(asked.record, checked=self._clock() - self._served_for(asked))
                    await self.tags.put(asked.key, asked.request, asked.route, due)

    def _given_to_others(self, asked: AskedTag) -> TagRecord | None:
        """What askers with another `Accept` have, if this one takes it: better than nothing."""
        found = self.tags.others(asked.request, asked.route)
        return next((record for record in found if self._held(record.digest)), None)

    async def _by_asking(self, asked: AskedTag, *, spare: bool) -> Answer:
        """As upstream has it now. Raises what keeps it from saying; `spare`: there is something else to serve then.

        For what anyone may have and is held a client need not have a credential, nor one that is still good.
        """
        if not spare or asked.admitted != "public":
            return await self._by_asking_as(asked, spare=spare)
        showing = "authorization" in asked.request.headers and not asked.request.identity.own
        if showing:
            try:
                return await self._by_asking_as(asked, spare=True)
            except (Refused, HeadRefused) as refusal:
                if refusal.status not in REFUSALS:
                    raise
        return await self._by_asking_as_nobody(asked)

    async def _by_asking_as_nobody(self, asked: AskedTag) -> Answer:
        """With nobody's rights; where these are not enough any more, upstream's answer to the client itself."""
        if (request := await self._errands.of_nobody(asked.request)) is not None:
            try:
                return await self._by_asking_as(replace(asked, request=request), spare=True)
            except (Refused, HeadRefused) as refusal:
                if trouble(refusal):
                    raise
                await self._admission.refused(request, asked.route.repository, refusal.status)
        request = replace(asked.request, alone=True)
        if request.method == "HEAD":
            return await self._fresh.head(request, asked.route)
        return await self._first_get(replace(asked, request=request))

    async def _by_asking_as(self, asked: AskedTag, *, spare: bool) -> Answer:
        request = asked.request
        if asked.record is None and request.method == "GET":
            return await self._first_get(asked)
        try:
            current = await self._checks.run(
                (asked.key, request.identity.credential, request.asks, request.method), lambda: self._check(asked)
            )
        except HeadRefused as failure:
            final = SAYS_NO if request.asks == "nobody" else REFUSALS if asked.admitted == "public" else ()
            if spare and (trouble(failure) or failure.status in final):
                raise
            current = None
        if current is None:  # upstream does not say which digest it is
            if request.method == "HEAD":
                return await self._fresh.head(request, asked.route)
            return await self._first_get(asked)
        same = asked.record is not None and asked.record.digest == current.digest
        awaited = asked.record is not None and not self._held(current.digest)
        if current.awaits:
            return await self._of_record(asked, current, *WAITING)
        answer = await self._of_record(asked, current, "revalidated" if same else "miss", "checked")
        if awaited and self._held(current.digest):
            await self._uptake.take(asked, current, "check")
        return answer

    async def _check(self, asked: AskedTag) -> TagRecord | None:
        """A conditional HEAD of the tag: free of Docker Hub's quota. It proves access as well."""
        request, record, repository = asked.request, asked.record, asked.route.repository
        more = [("If-None-Match", f'"{record.digest}"')] if record else []
        way = self._errands.checking if record else self._errands.asking
        (status, fields), one = await way(request, repository, asked.tag, lambda one: self._upstreams.head(one, *more))
        await self._admission.accepted(one, repository, asked.tag)
        now = self._clock()
        if status == 304 and record:
            digest, media_type, size = record.digest, record.media_type, record.size
        else:
            try:
                digest = Digest.parse(fields.get("docker-content-digest", ""))
            except InvalidDigest:
                return None
            media_type = fields.get("content-type", "")
            length = fields.get("content-length", "")
            size = int(length) if length.isdigit() else NO_SIZE
        return await self._uptake.settle(asked, TagRecord(digest, media_type, size, now, now), "check")

    async def _first_get(self, asked: AskedTag) -> Answer:
        """The tag itself, fetched: one round trip instead of a HEAD and a GET, as a direct pull has it."""
        digest, body, media_type = await self._fresh.fetch(asked.request, asked.route)
        now = self._clock()
        settled = await self._uptake.settle(asked, TagRecord(digest, media_type, len(body), now, now), "pull")
        if settled.awaits:
            return await self._of_record(asked, settled, *WAITING)
        return reply(asked.request, digest, body, media_type, "miss", "fetched", age=0)

    async def _of_record(self, asked: AskedTag, record: TagRecord, verdict: Verdict, why: str) -> Answer:
        request, repository = asked.request, asked.route.repository
        age = self._clock() - record.checked
        held = self._held(record.digest)
        if held is not None:
            await note_belonging(self._admission, request, repository, record.digest, *held)
            known = verdict in {"hit", "stale", "held"} or request.asks != "client"
            admitted = asked.admitted if known and asked.admitted else "checked"
            return reply(request, record.digest, *held, verdict, why, age=age, admitted=admitted)
        if request.method == "HEAD":
            fields = of_content(record.digest, record.media_type, status="hit; detail=record", age=age)
            length = None if record.size == NO_SIZE else record.size
            return Answer(200, Headers(fields), verdict=verdict, why=why, length=length)
        _, body, media_type = await self._fresh.fetch(request, ManifestRoute(repository, record.digest))
        return reply(request, record.digest, body, media_type, "miss", "fetched", age=age)

    def _held(self, digest: Digest) -> tuple[bytes, str] | None:
        return held_manifest(self._records, digest)
