"""The fetching process's side: takes orders from the workers, one connection a blob, and tells what happens.

All transfers of the box are in one process, so that one blob is one transfer, caps and counts of connections are the
box's, and a worker that dies breaks off no fetch. What a source is, and what its failures are, is known to whoever
makes them of the orders' documents.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.tasks import spawn
from entrepot.upstream.news import LONGEST, Document, hear, say
from entrepot.upstream.source import Source
from entrepot.upstream.transfer import Transfer
from entrepot.upstream.transfers import Transfers

_log = logging.getLogger("entrepot.fetch")
MODE: Final = 0o600  # of the socket: orders hold credentials

type Grant = Callable[[str, int], Awaitable[int]]
"""Of so many bytes wanted from a registry, how many may come now; waits until some may."""


class Fetcher:
    """Serves orders. `source` makes a source of an order's document, `failed` a document of what ended a transfer."""

    def __init__(
        self,
        transfers: Transfers,
        source: Callable[[Document], Source],
        failed: Callable[[EntrepotError], Document],
        grant: Grant,
        *,
        mine: type[EntrepotError],
    ) -> None:
        """`mine`: a refusal, which concerns the credential that was used and nobody else."""
        self._transfers, self._source, self._failed, self._grant = transfers, source, failed, grant
        self._mine = mine
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, path: Path, ready: Callable[[], None], stop: asyncio.Event, drain: float) -> None:
        """Listens until `stop`, and then for `drain` seconds more as long as workers wait for anything."""
        draft = path.with_name(f"{path.name}.new")
        draft.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, str(draft), limit=LONGEST, backlog=512)
        draft.chmod(MODE)
        draft.replace(path)  # nobody connects before it is for us alone; a dead one's is replaced
        ready()
        await stop.wait()
        deadline = asyncio.get_running_loop().time() + drain
        while self._open and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self._open, timeout=deadline - asyncio.get_running_loop().time())
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # start_unix_server runs this in one
        self._open.add(task)
        try:
            if (order := await hear(reader)) is not None:
                await self._obey(order, reader, writer)
        except (EntrepotError, KeyError, TypeError, ValueError) as e:
            _log.error("an order that makes no sense: %s", e)
        except OSError:
            pass  # the worker has died
        finally:
            self._open.discard(task)
            writer.close()

    async def _obey(self, order: Document, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match order:
            case {"digest": str(digest), "size": int() | None as size, "source": dict(source), "others": list(others)}:
                sources = [self._source(one) for one in (source, *others)]
                await self._bring(Digest.parse(digest), size, sources, reader, writer)
            case {"ask": dict(source)}:
                say(writer, await self._ask(self._source(source)))
                await writer.drain()
            case _:
                await self._pace(order, reader, writer)

    async def _ask(self, source: Source) -> Document:
        try:
            async with source.open(0):
                return {"given": True}
        except EntrepotError as e:
            return {"failed": self._failed(e)}

    async def _pace(self, order: Document | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while order is not None:
            match order:
                case {"pace": str(registry), "bytes": int(wanted)}:
                    say(writer, {"granted": await self._grant(registry, wanted)})
                case _:
                    raise ValueError(f"unknown order with {', '.join(order)}")
            await writer.drain()
            order = await hear(reader)

    async def _bring(
        self,
        digest: Digest,
        size: int | None,
        sources: Sequence[Source],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        source, *others = sources
        while True:
            transfer, started = self._transfers.join(digest, source, size, others)
            for one in () if started else sources:
                transfer.offer(one)
            listening = spawn(self._listen(reader, teller := _Teller(transfer, writer)), name=f"orders for {digest}")
            telling = spawn(teller.tell(source), name=f"news of {digest}", quiet=True)
            try:
                await asyncio.wait([listening, telling], return_when=asyncio.FIRST_COMPLETED)
                if not telling.done():
                    return  # the worker is gone
                failure = await telling
            finally:
                for task in (listening, telling):
                    task.cancel()
                await asyncio.gather(listening, telling, return_exceptions=True)
            if isinstance(failure, self._mine) and not started:
                continue  # it was another's credential that was refused
            if failure is not None:
                say(writer, {"failed": self._failed(failure)})
            with suppress(OSError):
                await writer.drain()
            return

    async def _listen(self, reader: asyncio.StreamReader, teller: "_Teller") -> None:
        """What the worker adds to its order, until it is gone."""
        transfer = teller.transfer
        transfer.arrive()
        try:
            while (said := await hear(reader)) is not None:
                match said:
                    case {"waiting": bool() as somebody} if somebody != teller.heard:
                        teller.heard = somebody
                        (transfer.arrive if somebody else transfer.leave)()
                        teller.tell_where()
                    case {"offer": dict(source)}:
                        transfer.offer(self._source(source))
                    case _:
                        continue
        finally:
            if teller.heard:
                transfer.leave()


class _Teller:
    """Tells a worker what happens; how far it is only while somebody waits there."""

    def __init__(self, transfer: Transfer, writer: asyncio.StreamWriter) -> None:
        self.transfer, self._writer = transfer, writer
        self.heard = True
        self._opened = False

    async def tell(self, source: Source) -> EntrepotError | None:
        """To the end; returns what ended the transfer if it was not done."""
        transfer, writer = self.transfer, self._writer
        try:
            await transfer.opened()
            say(writer, {"opened": transfer.size, "accepted": source.accepted})
            self._opened = True
            while not transfer.verified:
                at = transfer.available
                self.tell_where()
                await writer.drain()  # a worker that is busy hears of the latest only
                await transfer.watch(at)
            say(writer, {"done": transfer.size})
            await writer.drain()
            await transfer.over.wait()
        except EntrepotError as e:
            return e
        return None

    def tell_where(self) -> None:
        """How many bytes clients may have."""
        if self.heard and self._opened:
            say(self._writer, {"at": self.transfer.available})
