"""From when clients get what upstream has: the record of a tag and its history, kept together (DESIGN rules 4 and 7).

A tag that has moved is taken up once the new manifest is held and has been seen for `cooldown`; until then clients get
the old one, if that is held. What a push or an order through this very box has brought about does not wait.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from entrepot.engine.history import History
from entrepot.engine.messages import PullRequest
from entrepot.engine.policy import Policy
from entrepot.engine.tags import TagRecord, Tags
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute


@dataclass(frozen=True, slots=True)
class AskedTag:
    """One question for a tag, and what is known of it."""

    request: PullRequest
    route: ManifestRoute
    tag: str
    key: str  # of its record
    record: TagRecord | None
    admitted: str  # why the asker may have what is held; "" until upstream is asked


class Uptake:
    """Over the records of tags. `is_held`: of a manifest; `is_pushed`: this tag was, through the box, a moment ago."""

    def __init__(
        self,
        tags: Tags,
        history: History,
        policy: Policy,
        *,
        is_held: Callable[[Digest], bool],
        is_pushed: Callable[[AskedTag], bool],
    ) -> None:
        self._tags, self._history, self._is_held, self._is_pushed = tags, history, is_held, is_pushed
        self.policy = policy

    async def settle(self, asked: AskedTag, current: TagRecord, how: str) -> TagRecord:
        """What clients get, now that upstream has `current`: what it was before, with `awaits`, or that."""
        record = asked.record
        if record and record.digest != current.digest and self._is_held(record.digest):
            seen = await self._note(asked, current, how, taken=False)
            waits = 0 <= current.checked - seen < self.policy.cooldown_of(asked.request.registry)
            if waits and record.checked:  # 0: see `Tags.forget`
                waiting = replace(record, checked=current.checked, awaits=str(current.digest))
                return await self._tags.put(asked.key, asked.request, asked.route, waiting)
            if not self._is_held(current.digest):
                return current
        return await self.take(asked, current, how)

    async def take(self, asked: AskedTag, current: TagRecord, how: str) -> TagRecord:
        """It is what clients get from now on."""
        kept, before = await self._tags.put(asked.key, asked.request, asked.route, current), asked.record
        if before is None or before.digest != kept.digest or before.awaits:
            await self._note(asked, current, how, taken=True)
        return kept

    async def _note(self, asked: AskedTag, current: TagRecord, how: str, *, taken: bool) -> float:
        """Since when upstream is known to have it, in epoch seconds."""
        how = "push" if self._is_pushed(asked) else how
        limit = self.policy.history_of(asked.request.registry)
        move = await self._history.seen(
            asked.request, asked.route, asked.key, asked.record, current, how=how, taken=taken, limit=limit
        )
        return move.seen
