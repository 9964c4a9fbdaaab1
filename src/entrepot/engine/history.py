"""What a tag has been: every move that was seen, with when, how and by whom (DESIGN rule 7).

A move is written when it is seen, and nothing at any other pull: until when the latest one was so is in the tag's
record (`checked`), and is copied here when the next one comes. Each class of `Accept` has a history, because a registry
may answer each with another manifest. Which tags a digest was seen under is kept beside (`tagged/...`).

Seen is not taken: while a move waits (`cooldown`), or its manifest has not come, clients get what was before. What a
tag was *here*, for dated names and for going back, is what was taken.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.audit import fingerprint
from entrepot.engine.messages import PullRequest
from entrepot.engine.tags import TagRecord
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute

MOST_TAGS: Final = 32  # that are remembered for a digest


@dataclass(frozen=True, slots=True)
class Move:
    """A digest that a tag was."""

    digest: str
    media_type: str
    size: int  # bytes of the manifest, -1 when upstream did not say
    seen: float  # epoch seconds at which upstream was first seen to have it, or at which it was ordered
    last: float  # epoch seconds at which it was last seen; of the latest move in the tag's record
    taken: float  # epoch seconds from which clients got it; 0 = not yet
    how: str  # pull, check, push, or the order: hold, promote, rollback
    by: str  # who asked, as a fingerprint; the user who ordered it
    client: str  # address of who asked

    @classmethod
    def load(cls, value: object) -> "Move | None":
        match value:
            case {
                "digest": str(digest),
                "media_type": str(media_type),
                "size": int(size),
                "seen": float() | int() as seen,
                "last": float() | int() as last,
                "taken": float() | int() as taken,
                "how": str(how),
                "by": str(by),
                "client": str(client),
            }:
                return cls(digest, media_type, size, seen, last, taken, how, by, client)
            case _:
                return None


def loaded(value: Document | None) -> tuple[Move, ...]:
    """Of a record, the latest last."""
    moves = (value or {}).get("moves")
    return tuple(move for one in moves if (move := Move.load(one))) if isinstance(moves, list) else ()


def with_move(moves: Sequence[Move], move: Move, limit: int) -> tuple[Move, ...] | None:
    """With what was seen; None if nothing of it is new."""
    if not moves or moves[-1].digest != move.digest:
        return (*moves, move)[-max(1, limit) :]
    if not move.taken or moves[-1].taken:
        return None
    return (*moves[:-1], replace(moves[-1], taken=move.taken))


def at(moves: Iterable[Move], moment: float) -> Move | None:
    """What clients got at this moment."""
    return next((move for move in _latest_first(moves) if move.taken < moment), None)


def before(moves: Iterable[Move], digest: str) -> Iterator[Move]:
    """What clients had before this digest, the latest first, each digest once."""
    told = {digest}
    for move in _latest_first(moves):
        if move.digest not in told:
            told.add(move.digest)
            yield move


def _latest_first(moves: Iterable[Move]) -> list[Move]:
    """What was taken; of two that were at the same time the second is the later one."""
    return sorted((move for move in reversed([*moves]) if move.taken), key=lambda move: -move.taken)


class History:
    """The records of moves."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def moves(self, tag_key: str) -> tuple[Move, ...]:
        """Of a tag for one class of `Accept`; `tag_key`: of the tag's record. The latest last."""
        return loaded(self._records.get(_key(tag_key)))

    async def seen(
        self,
        request: PullRequest,
        route: ManifestRoute,
        tag_key: str,
        known: TagRecord | None,
        new: TagRecord,
        *,
        how: str,
        taken: bool,
        limit: int,
    ) -> Move:
        """Upstream has `new`, where `known` was in the record; the move as it is in the history."""
        moves = self.moves(tag_key)
        if known is not None and not moves:  # from a time when no history was kept
            moves = (_move(known, known.moved, known.moved, "before", "", ""),)
        if known is not None and moves[-1].digest == str(known.digest):
            moves = (*moves[:-1], replace(moves[-1], last=max(moves[-1].last, known.checked)))
        by = fingerprint(request.identity, route.repository) if request.asks == "client" else request.asks
        at = new.checked
        move = _move(new, at, at if taken else 0.0, how, by, request.client)
        if (changed := with_move(moves, move, limit)) is not None:
            await self._put(request.registry.name, route.repository, str(route.reference), tag_key, changed)
        return (changed or moves)[-1]

    async def ordered(self, registry: str, repository: str, tag: str, tag_key: str, move: Move, limit: int) -> None:
        """Somebody has ordered what clients get from now on."""
        if (changed := with_move(self.moves(tag_key), move, limit)) is not None:
            await self._put(registry, repository, tag, tag_key, changed)

    async def _put(self, registry: str, repository: str, tag: str, tag_key: str, moves: tuple[Move, ...]) -> None:
        values: dict[str, Document] = {
            _key(tag_key): {
                "registry": registry,
                "repository": repository,
                "tag": tag,
                "moves": [asdict(move) for move in moves],
            }
        }
        place = _tagged(registry, repository, moves[-1].digest)
        tags = self.tags_of(registry, repository, moves[-1].digest)
        if tag not in tags:
            values[place] = {"tags": [*tags, tag][-MOST_TAGS:]}
        await self._records.put_many(values)

    def tags_of(self, registry: str, repository: str, digest: str) -> tuple[str, ...]:
        """The tags of the repository under which this manifest was seen."""
        tags = (self._records.get(_tagged(registry, repository, digest)) or {}).get("tags")
        return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _key(tag_key: str) -> str:
    return f"history/{tag_key.removeprefix('tag/')}"


def _tagged(registry: str, repository: str, digest: str) -> str:
    return f"tagged/{registry}/{repository}/{digest}"


def _move(record: TagRecord, seen: float, taken: float, how: str, by: str, client: str) -> Move:
    return Move(str(record.digest), record.media_type, record.size, seen, seen, taken, how, by, client)


def digest_of(move: Move) -> Digest:
    """Raises `InvalidDigest`: what is in the records is what was put there."""
    return Digest.parse(move.digest)
