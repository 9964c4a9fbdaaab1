"""kill -9 of every process at random instants, again and again, while clients pull (DESIGN rules 1, 2 and 10).

After each kill, with nothing repaired by hand: names resolve and a new image can be pulled, what is committed is right,
every part is the beginning of its blob and is gone on with from where it ended, and nobody got wrong bytes or was
broken off who was not served by a process that was killed.
"""

import json
import os
import random
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import dns.message
import dns.query
import pytest
from tests.lab import images, world
from tests.lab.net import LabFault, Network, descendants, in_parallel, wait_for
from tests.lab.product import Entrepot, alive, kill
from tests.lab.store import Store
from tests.lab.traffic import ANY_MANIFEST, Incident, Traffic
from tests.lab.upstream import Requests, Upstream
from tests.lab.wire import Download, Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SEED = "ENTREPOT_LAB_SEED"
"""Variable with the seed of a run that is to be repeated; the instants are those of the machine all the same."""
ADDRESSES = (world.CACHE_SECOND, "10.91.1.3")
"""Of two boxes, one beside the other: a start uses one core, and most of the time something is starting."""
WORKERS = 2
LIVES = 10  # of the supervisor of each box; each ends with a kill of it or of all at once, before the back-off is long
SOFT = (*["worker"] * 5, "workers", *["other"] * 3)
HARD = ("supervisor", "all")
ROUNDS = 200  # at least, of both
CLIENTS = 3  # of each box
SIZES = [64 * images.KIB, 256 * images.KIB, images.MIB, 2 * images.MIB, 4 * images.MIB]
RATE = 1.5 * images.MIB  # bytes per second of each upstream answer: the larger blobs take longer than most rounds
AIMED = 0.6  # of the kills wait for a transfer to be under way; the others strike when they strike
FAIR_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed, and what was known of it the moment before."""

    kind: str
    ports: frozenset[int]
    begun: float
    done: float
    parts: Mapping[str, int]
    """Digest of every part, and the bytes it held at least; exactly, when nobody was left to write."""
    inside: bool
    """Of a process that was writing a part, which is still there."""

    @property
    def hard(self) -> bool:
        return self.kind in HARD


class Killing:
    """What strikes one box."""

    def __init__(self, box: Entrepot, store: Store, chance: random.Random) -> None:
        self._box, self._store, self._chance = box, store, chance

    def strike(self, kind: str) -> Kill:
        """Kills at a random instant, and returns when the victims are gone."""
        victims = self._aim(kind)
        begun = monotonic()
        ports = frozenset(port for pid in victims for port in self._box.clients_of(pid))
        parts = {digest: size for digest, size in self._store.parts().items() if size}
        writing = {digest for digest, pid in self._store.writers().items() if pid in victims and digest in parts}
        # Of the supervisor's children the kernel is to take care.
        for pid in [self._box.daemon.pid] if kind == "supervisor" else self._chance.sample(list(victims), len(victims)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(alive, victims)), f"the end of {kind}")
        done = monotonic()
        if kind in HARD:  # nor do children live on that were just being started
            wait_for(lambda: not any(map(alive, descendants(self._box.machine.pid))), "the end of all children", 5)
        left = self._store.parts()
        if kind in HARD:
            parts = {digest: size for digest, size in left.items() if size}
        name = next(iter(victims.values())) if kind == "other" else kind
        return Kill(name, ports, begun, done, parts, inside=not writing.isdisjoint(left))

    def _aim(self, kind: str) -> dict[int, str]:
        """The victims, now; or at an instant at which they are busy, if that comes soon."""
        sleep(self._chance.uniform(0, 0.1))
        wait_for(lambda: bool(self._victims(kind)), f"any {kind}")
        victims = self._victims(kind)
        if self._chance.random() < AIMED:
            with suppress(LabFault):
                wait_for(lambda: self._busy(victims), "a transfer", 0.5)
                sleep(self._chance.uniform(0, 0.05))
        return victims

    def _victims(self, kind: str) -> dict[int, str]:
        """Pids and roles."""
        roles = self._box.roles()
        if kind in HARD:
            return {self._box.daemon.pid: "supervisor", **roles}
        found = {pid: role for pid, role in roles.items() if (role == "proxy") == kind.startswith("worker")}
        if kind == "workers" or not found:
            return found
        pid = self._chance.choice(list(found))
        return {pid: found[pid]}

    def _busy(self, victims: dict[int, str]) -> bool:
        parts = self._store.parts()
        writing = any(parts.get(digest) for digest, pid in self._store.writers().items() if pid in victims)
        return writing or any(self._box.clients_of(pid) for pid, role in victims.items() if role == "proxy")


class Story:
    """One box, what strikes it, who pulls from it, and what all of them must say after each round."""

    def __init__(self, box: Entrepot, network: Network, upstream: Upstream, direct: Wire, seed: int) -> None:
        self.box, self._network, self._upstream = box, network, upstream
        self._chance = random.Random(seed)
        self._wire = Wire(network.laptop, box.ca_file, box.address)
        self.store = Store(box.store, self._original)
        self._killing = Killing(box, self.store, self._chance)
        self.traffic = Traffic(self._wire, direct, upstream, SIZES, seed)
        self.rounds, self.inside = Counter[str](), Counter[str]()
        self.spent: defaultdict[str, float] = defaultdict(float)  # seconds until it served again
        self.resumed = 0

    def run(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            self.traffic.begin(pool, CLIENTS)
            try:
                for _ in range(LIVES):
                    for kind in (*self._chance.sample(SOFT, len(SOFT)), self._chance.choice(HARD)):
                        self._round(kind)
            finally:
                self.traffic.end()

    def _round(self, kind: str) -> None:
        struck = self._killing.strike(kind)
        with self._upstream.watched() as seen:
            if struck.hard:
                check_at_rest(self.store)
                self.box.start()
            up = monotonic()
            self._pull_something_new()
            self._resolve()
            assert self.box.daemon.running
            self.spent[struck.kind] += monotonic() - struck.done
            self.store.check()
            broken = self.traffic.judge(Incident(struck.ports, struck.begun, struck.done, up))
        self.resumed += check_resumed(seen, struck)
        self.rounds[struck.kind] += 1
        self.inside[struck.kind] += struck.inside or broken > 0

    def _pull_something_new(self) -> None:
        """On the first try and on one connection, from manifest to the last byte."""
        image = images.build([SIZES[0]], "oci")
        repository = self._upstream.publish(world.MICROSOFT, image)
        connection = self._wire.open(repository.host)
        try:
            for name, blob in (("manifests/1", image.manifest), *((f"blobs/{one.digest}", one) for one in image.blobs)):
                connection.request("GET", repository.target(name), headers=ANY_MANIFEST)
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, blob.data), name
        finally:
            connection.close()

    def _resolve(self) -> None:
        """Over TCP, whose connections wait for a process that is not there yet."""
        with self._network.laptop.connect(self.box.address, 53) as connection:
            connection.settimeout(20)
            dns.query.send_tcp(connection, dns.message.make_query("quay.io", "A"))
            reply, _ = dns.query.receive_tcp(connection)
        assert self.box.address in str(reply.answer)

    def _original(self, digest: str) -> Path:
        for registry in (world.MICROSOFT, world.QUAY):
            if (path := images.blob_path(self._upstream.storage(registry), digest)).exists():
                return path
        raise AssertionError(f"the upstream never had {digest}")


def check_at_rest(store: Store) -> None:
    """Nobody runs: the ledger counts all that is there, and perhaps what the dead had reserved."""
    assert store.check_databases() >= store.there()


def check_resumed(seen: Requests, struck: Kill) -> int:
    """How many of the parts were gone on with; none of them from before where it ended."""
    starts: dict[str, int] = {}
    for request in seen:
        digest = request.path.rpartition("/")[2]
        if request.method == "GET" and digest in struck.parts:
            start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            held = struck.parts[digest]
            assert start >= held, f"{digest}: held {held} bytes when {struck.kind} was killed, asked from {start} on"
            starts.setdefault(digest, start)
    if struck.hard:
        assert starts == {digest: struck.parts[digest] for digest in starts}
    return len(starts)


def check_by_command(story: Story) -> None:
    """What the product says of its store is what is there; and it finds nothing to repair in what it serves."""
    wait_for(lambda: not story.store.writers(), "the end of what goes on for nobody", 30)
    held = story.store.blobs()
    scrubbed = json.loads(story.box.command("scrub", "--json"))
    assert (scrubbed["blobs"], scrubbed["bytes"]) == (len(held), sum(held.values()))
    assert (scrubbed["wrong"], scrubbed["leftovers"]) == ([], [])
    planned = json.loads(story.box.command("gc", "--dry-run", "--json"))
    assert (planned["used"], planned["removals"]) == (story.store.there(), [])


@pytest.fixture
def boxes(
    network: Network, upstream: Upstream, entrepot: Entrepot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Entrepot]]:
    made = [
        Entrepot(
            network.cache,
            tmp_path_factory.mktemp("killed"),
            upstream.ca_file,
            address,
            entrepot.certs,
            listen=f"workers = {WORKERS}",
            env={"ENTREPOT_DNS_FAIL_OPEN": "false"},  # else names lead past it while its workers are away
        )
        for address in ADDRESSES
    ]
    network.cache.run("ip", "address", "add", f"{ADDRESSES[1]}/24", "dev", "lan")
    for box in made:
        box.start()
    yield made
    for box in made:
        box.stop()
        shutil.rmtree(box.store / "blobs", ignore_errors=True)
    network.cache.run("ip", "address", "del", f"{ADDRESSES[1]}/24", "dev", "lan")


def test_kills(boxes: list[Entrepot], network: Network, upstream: Upstream, direct_wire: Wire) -> None:
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(1 << 32))
    print(f"{SEED}={seed}")
    stories = [Story(box, network, upstream, direct_wire, seed + number) for number, box in enumerate(boxes)]
    began = monotonic()
    with upstream.fault(method="GET", path=".*/blobs/.*", rate=RATE):
        in_parallel([story.run for story in stories])
    for story in stories:
        story.store.check_all()
        check_by_command(story)
        story.box.stop()
        check_at_rest(story.store)
    report(stories, monotonic() - began)


def report(stories: list[Story], seconds: float) -> None:
    """Prints what happened, and sees to it that it was not too little."""
    rounds, inside = Counter[str](), Counter[str]()
    for story in stories:
        rounds, inside = rounds + story.rounds, inside + story.inside
        print(story.traffic.count, f"parts gone on with: {story.resumed}")
    for kind, number in rounds.items():
        away = sum(story.spent[kind] for story in stories) / number
        print(f"{kind}: {number} kills, {inside[kind]} within a transfer, served a new pull after {away:.2f} s")
    print(f"{rounds.total()} kills in {seconds:.0f} s, {inside.total()} within a transfer")
    assert rounds.total() >= ROUNDS
    assert inside.total() > FAIR_SHARE * rounds.total()
    assert all(min(one.resumed, one.traffic.count.whole, one.traffic.count.resumed) > 0 for one in stories)


def test_a_part_that_is_whole_needs_no_upstream(own_entrepot: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """Killed after the last byte and before the commit: there is no byte left that upstream could be asked for."""
    image = images.build([images.MIB], "oci")
    repository = upstream.publish(world.MICROSOFT, image)
    blob = image.layers[0].blob

    def download() -> Download:
        return Download(own_wire, repository.host, repository.target(f"blobs/{blob.digest}"), {})

    with upstream.fault(method="GET", path=f".*/blobs/{blob.digest}", pause_after=images.MIB // 2):
        first = download()
        first.read(images.MIB // 4)
        for pid in own_entrepot.serving():
            kill(pid)
        first.close()
    (part,) = (path for path in own_entrepot.incoming(blob.digest) if path.suffix == ".part")
    part.write_bytes(blob.data)
    with upstream.watched() as seen:
        again = download()
        again.read()
    assert (again.status, again.digest) == (200, blob.digest)
    assert sum(each.sent for each in seen) == 0
    wait_for(own_entrepot.held(blob.digest).exists, "the blob in the store")
