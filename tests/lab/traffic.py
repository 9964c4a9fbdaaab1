"""Clients that pull on and on while something is done to the cache, and what may become of their downloads.

Each pulls blobs of new images, some that nobody has asked for yet, some that were broken off half-way, some that are
held, and goes on with `Range` as docker and containerd do when it was closed short. Whatever happens, an answer that
ends whole has the right bytes; one that does not has to be explained by an `Incident` (see `Traffic.judge`).
"""

import http.client
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from tests.lab import images, world
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

ANY_MANIFEST = {"Accept": f"{images.TYPES['oci'][1]}, {images.TYPES['oci'][0]}"}
PIECE = 1 << 16
BACKLOG = 8  # things to pull that all clients choose from; what was broken off stays among them


@dataclass(frozen=True, slots=True)
class Thing:
    """Something to pull, and what it must be."""

    host: str
    target: str
    digest: str
    size: int
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Incident:
    """What was done to the cache; times are those of the monotonic clock."""

    ports: frozenset[int]
    """The clients whose connections it broke, as of `begun`."""
    begun: float
    done: float
    up: float
    """From then on new connections are taken again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that did not come whole."""

    began: float
    opened: float | None
    """When its TLS connection was there, None if it never was."""
    port: int
    ended: float
    why: str

    def explained_by(self, incident: Incident) -> bool:
        if self.opened is None:
            return self.began <= incident.up and self.ended >= incident.begun
        inside = self.began <= incident.done and self.ended >= incident.begun
        return inside and (self.port in incident.ports or self.opened >= incident.begun)


@dataclass(slots=True)
class Count:
    whole: int = 0
    broken: int = 0
    resumed: int = 0
    """Of the whole ones, those that were put together from more than one answer."""


class Traffic:
    """Use as a context manager: clients pull until its end. `direct` asks the token services past the cache."""

    def __init__(self, wire: Wire, direct: Wire, upstream: Upstream, sizes: Sequence[int], seed: int) -> None:
        self._wire, self._direct, self._upstream, self._sizes = wire, direct, upstream, sizes
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._things: list[Thing] = []
        self._broken: list[Broken] = []
        self._clients: list[Future[None]] = []
        self.count = Count()

    def begin(self, pool: ThreadPoolExecutor, clients: int) -> None:
        self._clients = [pool.submit(self._client, random.Random(self._seed + number)) for number in range(clients)]

    def end(self) -> None:
        """Lets the clients end what they are at."""
        self._stop.set()
        for client in self._clients:
            client.result()

    def judge(self, incident: Incident) -> int:
        """Nobody got anything wrong, and whatever was broken off until now was so by `incident`.

        Returns how many answers it has struck in their middle.
        """
        for client in self._clients:
            if client.done():
                client.result()
        with self._lock:
            broken, self._broken = self._broken, []
        for each in broken:
            assert each.explained_by(incident), f"{each}, which was not done by {incident}"
        return sum(each.opened is not None for each in broken)

    def _client(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            thing = self._choose(chance)
            if self._pull(thing, chance) and chance.random() < 0.8:  # else somebody may pull it again
                with self._lock:
                    if thing in self._things:
                        self._things.remove(thing)

    def _choose(self, chance: random.Random) -> Thing:
        with self._lock:
            if len(self._things) >= BACKLOG:
                return chance.choice(self._things)
        fresh = self._publish(chance)
        with self._lock:
            self._things += fresh
        return fresh[0]  # its manifest: what the blobs are then fetched with, ahead of need too

    def _publish(self, chance: random.Random) -> list[Thing]:
        registry = chance.choice((world.MICROSOFT, world.QUAY))
        image = images.build([chance.choice(self._sizes) for _ in range(3)], "oci")
        repository = self._upstream.publish(registry, image)
        headers = {**ANY_MANIFEST, **self._direct.authorization(repository)}
        tagged, *blobs = image.manifest, *image.blobs
        chance.shuffle(blobs)
        parts = [("manifests/1", tagged), *((f"blobs/{blob.digest}", blob) for blob in blobs)]
        return [
            Thing(repository.host, repository.target(name), blob.digest, len(blob.data), headers)
            for name, blob in parts
        ]

    def _pull(self, thing: Thing, chance: random.Random) -> bool:
        """Whether it came whole, if need be in several answers; those have the right bytes."""
        got, answers = bytearray(), 0
        while len(got) < thing.size and not self._stop.is_set():
            answers += 1
            if self._answer(thing, got):
                break
            self._stop.wait(0.1)
            if not got or chance.random() < 0.5:
                return False
        if len(got) < thing.size:
            return False
        assert images.digest_of(bytes(got)) == thing.digest, f"{thing}: wrong bytes in {answers} answers, all clean"
        with self._lock:
            self.count.whole += 1
            self.count.resumed += answers > 1
        return True

    def _answer(self, thing: Thing, got: bytearray) -> bool:
        """Adds what comes to `got`; whether it came whole."""
        began, opened, port, why = monotonic(), None, 0, ""
        connection: http.client.HTTPConnection | None = None
        try:
            connection = self._wire.open(thing.host)
            opened, port = monotonic(), connection.sock.getsockname()[1]
            more = {"Range": f"bytes={len(got)}-"} if got else {}
            connection.request("GET", thing.target, headers={**thing.headers, **more})
            answer = connection.getresponse()
            assert answer.status == (206 if got else 200), f"{thing}: {answer.status} {answer.read()[:500]!r}"
            assert answer.headers["Content-Length"] == str(thing.size - len(got)), thing
            while piece := answer.read1(PIECE):
                got += piece
            if len(got) == thing.size:
                return True
            why = f"closed after {len(got)} of {thing.size} bytes"
        except TimeoutError:
            raise  # nobody is ever left hanging
        except (OSError, http.client.HTTPException) as e:
            why = repr(e)
        finally:
            if connection is not None:
                connection.close()
        with self._lock:
            self.count.broken += 1
            self._broken.append(Broken(began, opened, port, monotonic(), f"{thing.target}: {why}"))
        return False
