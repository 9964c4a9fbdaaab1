"""The parts of the miss benchmark: what is pulled, by whom, and what is compared with what.

Both sides of a comparison are measured in turns within a round, and a ratio is made within a round. Every pull is of
content that Entrepot has never seen.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from bench import fill_costs, follower, report
from bench.fill_shapes import Part, Row
from bench.fill_world import Site, World
from bench.origin import Blob
from bench.wires import FAR, FAST, MID, NEAR, Wire
from tests.lab.net import in_parallel

HERD: Final = 16  # clients
LAYERS: Final = 8
PROFILED: Final = 4  # fills


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    herd_mib: int = 1024
    herd_rounds: int = 2
    single_mib: int = 256
    single_rounds: int = 3
    firsts: int = 20
    ingest_mib: int = 256  # no more, or a host takes back memory meanwhile (see Origin.touch_memory)
    ingest_rounds: int = 5
    layer_mib: int = 64
    image_rounds: int = 2
    blob_mib: int = 512
    blob_rounds: int = 1
    pieces: int = 400


QUICK: Final = Sizes(128, 1, 64, 1, 5, 128, 1, 16, 1, 128, 1, 100)


def _rate(size: int, seconds: float) -> float:
    """MB/s."""
    return size / seconds / 1e6


def _turns[T](round_: int, first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Both, in an order that changes from round to round; the results in the order given."""
    if round_ % 2 == 0:
        return first(), second()
    later = second()
    return first(), later


def herd(world: World, sizes: Sizes) -> Part:
    part = Part()
    alone, together, gets, fetched, shares = [], [], [], [], []
    for _ in range(sizes.herd_rounds):
        blob = world.origin.blob(sizes.herd_mib)
        (only,) = _all_at_once(world.through, NEAR, blob, 1)
        alone.append(only)
        blob, mark = world.origin.blob(sizes.herd_mib), world.origin.mark()
        together.append(max(_all_at_once(world.through, NEAR, blob, HERD)))
        asked = [each for each in world.origin.asked(mark, blob.path) if each.method == "GET"]
        gets.append(len(asked))
        fetched.append(sum(each.sent for each in asked) / blob.size)
        shares.append(_served_by(world, blob))
        world.origin.discard()
    what = f"{HERD} clients, one blob of {sizes.herd_mib:,} MiB at {_link(NEAR)}: last one done, s"
    wanted = "at most 1.15"
    part.compare(what, "one client alone", together, alone, digits=1, wanted=wanted, met=lambda x: x <= 1.15)
    part.rows.append(Row("... GETs upstream", report.spread(gets), wanted="exactly 1", met=max(gets) == 1))
    part.rows.append(Row("... bytes upstream / size", report.spread(fetched, 2), wanted="1", met=max(fetched) <= 1.0))
    part.notes.append(f"The {HERD} clients met the workers as {' and as '.join(shares)}.")
    part.measured |= {"gets": gets, "fetched": fetched, "shares": shares}
    return part


def _all_at_once(site: Site, wire: Wire, blob: Blob, clients: int) -> list[float]:
    """Seconds of each."""
    jobs = [partial(site.curl, wire, blob.path, size=blob.size)] * clients
    return [each.seconds for each in in_parallel(jobs)]


def _served_by(world: World, blob: Blob) -> str:
    """How many clients each worker has served, from the log: `7 + 9`."""
    lines = [line.split(":")[2].split()[-1] for line in world.product.said() if f"path={blob.path} " in line]
    return " + ".join(str(lines.count(name)) for name in sorted(set(lines)))


def _link(wire: Wire) -> str:
    rate = f"{wire.rate / 1e6:g} MB/s" if wire.rate else f"{wire.per_connection / 1e6:g} MB/s per connection"
    return f"{rate}, {wire.rtt * 1e3:g} ms" if wire.rtt else rate


def single(world: World, sizes: Sizes) -> Part:
    part = Part()
    for wire in (NEAR, MID):
        ours, theirs = [], []
        for round_ in range(sizes.single_rounds):
            blob = world.origin.blob(sizes.single_mib)
            pulls = [partial(site.curl, wire, blob.path, size=blob.size) for site in (world.through, world.direct)]
            one, other = _turns(round_, *pulls)
            ours.append(_rate(blob.size, one.seconds))
            theirs.append(_rate(blob.size, other.seconds))
            world.origin.discard()
        what = f"one client, blob of {sizes.single_mib:,} MiB at {_link(wire)}: MB/s"
        part.compare(what, "curl", ours, theirs, digits=1, wanted="at least 0.95", met=lambda x: x >= 0.95)
    for wire in (NEAR, MID):
        _first_bytes(world, wire, sizes.firsts, part)
    return part


def _first_bytes(world: World, wire: Wire, pairs: int, part: Part) -> None:
    ours, theirs = [], []
    for round_ in range(pairs):
        blob = world.origin.blob(1)
        pulls = [partial(site.curl, wire, blob.path, size=blob.size) for site in (world.through, world.direct)]
        one, other = _turns(round_, *pulls)
        ours.append(one.first * 1e3)
        theirs.append(other.first * 1e3)
    world.origin.discard()
    later = [one - other for one, other in zip(ours, theirs, strict=True)]
    what = f"first byte at {_link(wire)}, ms after the lookup"
    part.rows.append(Row(what, report.spread(ours, 1), "curl", report.spread(theirs, 1)))
    wanted = Row(
        f"... later than without Entrepot at {_link(wire)}, ms",
        report.spread(later, 1),
        wanted="at most 10",
        met=median(later) <= 10,
    )
    part.rows.append(wanted)
    part.measured[what] = {"entrepot": ours, "curl": theirs}


def ingest(world: World, sizes: Sizes) -> Part:
    part = Part()
    found: dict[str, list[float]] = {"alone": [], "served": [], "cheapest": [], "wall": []}
    for _ in range(sizes.ingest_rounds):
        blob = world.origin.blob(sizes.ingest_mib)
        _touch(world, sizes.ingest_mib)
        found["cheapest"].append(blob.size / world.direct.cheapest(FAST, blob) / 1e9)
        cpu, wall = _cost(world, blob, only="0-0")
        found["alone"].append(blob.size / cpu / 1e9)
        found["wall"].append(_rate(blob.size, wall))
        blob = world.origin.blob(sizes.ingest_mib)
        cpu, _ = _cost(world, blob)
        found["served"].append(blob.size / cpu / 1e9)
        world.origin.discard()
    part.compare(
        f"blob of {sizes.ingest_mib:,} MiB from a fast upstream, nobody reads along: GB per second of Entrepot's CPU",
        "curl to a file, then openssl dgst: GB per second of CPU",
        found["alone"],
        found["cheapest"],
        digits=2,
        wanted="at least 0.4 GB",
        met=lambda _: median(found["alone"]) >= 0.4,
    )
    part.rows.append(Row("... a client reads along", report.spread(found["served"], 2)))
    part.rows.append(Row("... MB/s until it is held", report.spread(found["wall"])))
    part.measured |= found
    _where_it_goes(world, sizes, part)
    return part


def _cost(world: World, blob: Blob, only: str = "") -> tuple[float, float]:
    """(CPU seconds of Entrepot, seconds until it is held) of a pull."""
    _touch(world, blob.size >> 20)
    before, begin = world.product.cpu(), time.monotonic()
    world.through.curl(FAST, blob.path, only=only)
    end = world.product.wait_for(blob.digest)
    return world.product.cpu() - before, end - begin


def _touch(world: World, mebibytes: int) -> None:
    world.origin.touch_memory(mebibytes + (mebibytes >> 1))


def _where_it_goes(world: World, sizes: Sizes, part: Part) -> None:
    bare = fill_costs.bare(world.folder, world.origin.leaf(FAST))
    profiles = _profiles(world, sizes)
    cpu, shares = min(profiles, key=lambda each: each[0], default=(0.0, None))  # the least disturbed
    part.measured |= {"bare": bare, "profile": shares}
    names = {
        f"{fill_costs.MAIN}: OpenSSL": "TLS, AES-256-GCM",
        f"{fill_costs.DISK}: OpenSSL": "SHA-256",
        f"{fill_costs.DISK}: kernel": "writing to the page cache",
    }
    rows = [["where the CPU time of a fill goes", "share", "ms per GB", "what that costs alone, ms per GB"]]
    for key in sorted(shares or bare, key=lambda key: -(shares or bare)[key]):
        alone = f"{names[key]}: {bare[key] * 1e3:.0f}" if key in bare else ""
        if not shares:
            rows.append([key, "?", "?", alone])
        elif shares[key] >= 0.005:
            rows.append([key, f"{shares[key]:.0%}", f"{shares[key] * cpu * 1e3:.0f}", alone])
    part.notes.append(report.table(rows))


def _profiles(world: World, sizes: Sizes) -> Iterator[tuple[float, dict[str, float] | None]]:
    """CPU seconds per GB and what they went into, of some fills; none without perf."""
    for _ in range(PROFILED):
        blob, costs = world.origin.blob(sizes.ingest_mib), list[float]()

        def work(blob: Blob = blob, costs: list[float] = costs) -> None:
            cpu, _ = _cost(world, blob, only="0-0")
            costs.append(cpu / blob.size * 1e9)

        shares = fill_costs.profile(world.folder, world.product.moving(), work)
        world.origin.discard()
        if costs:
            yield costs[0], shares


def image(world: World, sizes: Sizes) -> Part:
    part = Part()
    pullers: Mapping[str, Callable[[Site, Wire, str], float]] = {"skopeo copy": Site.skopeo, "docker pull": Site.docker}
    warm = world.origin.image([1 << 20])  # starts dockerd
    for site in (world.through, world.direct):
        site.docker(FAR, warm)
    for name, pull in pullers.items():
        ours, theirs = [], []
        for round_ in range(sizes.image_rounds):
            tag = world.origin.image([sizes.layer_mib << 20] * LAYERS)
            one, other = _turns(round_, partial(pull, world.through, FAR, tag), partial(pull, world.direct, FAR, tag))
            ours.append(one)
            theirs.append(other)
            world.origin.discard()
        what = f"`{name}`, {LAYERS} layers of {sizes.layer_mib} MiB at {_link(FAR)}: s"
        part.compare(what, "direct", ours, theirs, digits=1, wanted="at most 1.0", met=lambda x: x <= 1.0)
    return part


def _settled(world: World, sizes: Sizes, pull: Callable[[], float]) -> float:
    _touch(world, 3 * sizes.layer_mib * LAYERS)  # in the store, as it came and unpacked
    return pull()


def blob(world: World, sizes: Sizes) -> Part:
    part = Part()
    ours, theirs, gets = [], [], []
    for round_ in range(sizes.blob_rounds):
        made, mark = world.origin.blob(sizes.blob_mib), world.origin.mark()
        pulls = [partial(site.curl, FAR, made.path, size=made.size) for site in (world.through, world.direct)]
        one, other = _turns(round_, *pulls)
        ours.append(_rate(made.size, one.seconds))
        theirs.append(_rate(made.size, other.seconds))
        asked = world.origin.asked(mark, made.path)
        gets.append(sum(each.method == "GET" and each.client == FAR.box for each in asked))
        world.origin.discard()
    what = f"one client, blob of {sizes.blob_mib:,} MiB at {_link(FAR)}: MB/s"
    part.compare(what, "curl", ours, theirs, digits=1, wanted="more than 1", met=lambda x: x > 1)
    part.rows.append(Row("... GETs upstream", report.spread(gets)))
    part.measured["gets"] = gets
    return part


def followers(world: World, sizes: Sizes) -> Part:
    part = Part()
    ways = {"told": "told by the fetching process", "looks": "while there is none"}
    for how, words in ways.items():
        delays = sorted(each * 1e3 for each in follower.delays(world.folder / how, how, sizes.pieces))
        late = delays[round(0.99 * (len(delays) - 1))]
        what = f"from the disk to a reader in another process, {words}, ms:"
        part.rows.append(Row(f"{what} median", f"{median(delays):.1f}"))
        part.rows.append(Row("... 99th percentile", f"{late:.1f}", wanted="at most 20", met=late <= 20))
        part.measured[how] = delays
    return part


PARTS: Final[Mapping[str, Callable[[World, Sizes], Part]]] = {
    "herd": herd,
    "single": single,
    "ingest": ingest,
    "image": image,
    "blob": blob,
    "follower": followers,
}
