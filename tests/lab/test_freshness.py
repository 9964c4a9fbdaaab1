"""What a tag is, by what has become of it, when it is asked for, and how upstream is: one table (DESIGN rules 4 and 5).

The clock of the box is moved past `tag_ttl`; nobody waits. The tags are public ones of a registry with tokens.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from tests.lab import images, world
from tests.lab.clock import Clock
from tests.lab.contents import ANY_MANIFEST
from tests.lab.identities import Lines, Shown, way_in
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.upstream import Request, Requests, Upstream
from tests.lab.wire import Reply, Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

# Rows: when it is asked for (`soon` is after `tag_ttl`, but within `stale_while_revalidate`), what has become of it.
# Cells: the digest that is served, or the status of the refusal; how it is marked; what the registry is asked about the
# manifest meanwhile. `later`: from the record, and checked beside; `*`: whatever it is, it is refused. A registry that
# throttles is asked once, by each process, and then left alone for a while.
TABLE = """
                      up                 down             without-HEAD       throttled
    within   same     old,hit,-          old,hit,-        old,hit,-          old,hit,-
    within   moved    old,hit,-          old,hit,-        old,hit,-          old,hit,-
    within   deleted  old,hit,-          old,hit,-        old,hit,-          old,hit,-
    within   private  old,hit,-          old,hit,-        old,hit,-          old,hit,-
    forever  same     old,hit,-          old,hit,-        old,hit,-          old,hit,-
    forever  moved    old,hit,-          old,hit,-        old,hit,-          old,hit,-
    forever  deleted  old,hit,-          old,hit,-        old,hit,-          old,hit,-
    forever  private  old,hit,-          old,hit,-        old,hit,-          old,hit,-
    after    same     old,hit,HEAD       old,stale,-      old,miss,HEAD+GET  old,stale,HEAD?
    after    moved    new,miss,HEAD+GET  old,stale,-      new,miss,HEAD+GET  old,stale,HEAD?
    after    deleted  404,-,HEAD+GET     old,stale,-      404,-,HEAD+GET     old,stale,HEAD?
    after    private  401,-,*            old,stale,-      401,-,*            old,stale,HEAD?
    soon     same     old,hit,later      old,hit|stale,-  old,hit,later      old,hit|stale,HEAD?
    soon     moved    old,hit,later      old,hit|stale,-  old,hit,later      old,hit|stale,HEAD?
    soon     deleted  old,hit,later      old,hit|stale,-  old,hit,later      old,hit|stale,HEAD?
    soon     private  old,hit,later      old,hit|stale,-  old,hit,later      old,hit|stale,HEAD?
"""
BECOMES = {"same": "old", "moved": "new", "deleted": "404", "private": "401"}
TTL, AFTER = 60, timedelta(seconds=70)
POLICY = f'[policy]\ntag_ttl = "{TTL}s"\ntag_ttls = {{ "*:v*" = "forever" }}\n'
SOON = f'{POLICY}stale_while_revalidate = "1h"\n'
FOREVER = "v1"
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """A tag, before and after."""

    when: str
    change: str
    cell: str
    repository: world.Repository
    old: images.Image
    new: images.Image

    @property
    def tag(self) -> str:
        return FOREVER if self.when == "forever" else world.TAG

    def ask(self, lines: Lines, shown: Shown) -> Reply:
        target = self.repository.target(f"manifests/{self.tag}")
        return lines.ask(self.repository.host, target, {**ANY_MANIFEST, **shown})

    def served(self, reply: Reply) -> str:
        if reply.status != 200:
            return str(reply.status)
        return {self.old.manifest.data: "old", self.new.manifest.data: "new"}.get(reply.body, "something else")

    def questions(self, seen: Requests) -> list[Request]:
        return [each for each in seen if each.path.startswith(self.repository.target("manifests/"))]

    def wrong(self, reply: Reply, asked: list[Request]) -> str | None:
        """What is not as the table has it."""
        served, marks, questions = self.cell.split(",")
        got, methods = self.served(reply), "+".join(each.method for each in asked) or "-"
        right = {
            "later": True,
            "*": all(each.status >= 400 for each in asked),
            "HEAD?": methods in {"-", "HEAD"},
        }.get(questions, methods == questions)
        mark = marked(reply, old=self.when in {"soon", "forever"})
        if got == served and mark in marks.split("|") and right:
            return None
        return f"{self.when} {self.change}: expected {self.cell}, got {got},{mark},{methods}"


def marked(reply: Reply, *, old: bool) -> str:
    """As all of its fields say. `old`: what is from the record is older than `tag_ttl`."""
    if reply.status != 200:
        return "-"
    said = reply.headers["Cache-Status"].partition("; ")[2]
    kind = {"hit": "hit", "hit; detail=stale": "stale"}.get(said, "miss")
    found = reply.headers["Warning"], reply.headers["X-Entrepot"], int(reply.headers["Age"]) >= TTL
    stale = kind == "stale"
    wanted = ('111 entrepot "Revalidation Failed"', "stale") if stale else (None, None)
    return kind if found == (*wanted, stale or (old and kind == "hit")) else f"{kind} with {found}"


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def box(
    network: Network, upstream: Upstream, entrepot: Entrepot, clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrepot]:
    folder = tmp_path_factory.mktemp("fresh")
    box = Entrepot(
        network.cache,
        folder,
        upstream.ca_file,
        world.CACHE_SECOND,
        entrepot.certs,
        listen=f"workers = {WORKERS}",
        env=clock.env,
    )
    box.write_config(POLICY)
    box.start()
    yield box
    box.stop()


def rows(state: str, upstream: Upstream) -> Iterator[Row]:
    head, *lines = (line.split() for line in TABLE.strip().splitlines())
    for when, change, *cells in lines:
        old, new = images.build([images.KIB], "oci"), images.build([images.KIB], "oci")
        row = Row(when, change, cells[head.index(state)], upstream.publish(world.QUAY, old), old, new)
        upstream.move(row.repository, old, row.tag)
        yield row


def change(row: Row, upstream: Upstream) -> AbstractContextManager[None]:
    """Happens at the registry; `private` as long as the block lasts."""
    match row.change:
        case "moved":
            upstream.move(row.repository, row.new, row.tag)
        case "deleted":
            upstream.untag(row.repository, row.tag)
        case "private":
            return upstream.owned(row.repository, world.ALICE)
    return nullcontext()


def state(name: str, network: Network, upstream: Upstream) -> AbstractContextManager[None]:
    manifests = {"host": world.QUAY.host, "path": ".*/manifests/.*"}
    match name:
        case "down":
            return network.unplugged()
        case "without-HEAD":
            return upstream.fault(**manifests, method="HEAD", status=405)
        case "throttled":
            return upstream.fault(**manifests, status=429)
    return nullcontext()


def shown(lines: Lines, row: Row) -> Shown:
    """By a client that has just come."""
    found = way_in(lines, row.repository)
    assert isinstance(found, dict), found
    return found


def is_so(lines: Lines, row: Row) -> bool:
    """The next ones who ask are served what it has become."""
    return row.served(row.ask(lines, shown(lines, row))) == BECOMES[row.change]


@pytest.mark.parametrize("name", ["up", "down", "without-HEAD", "throttled"])
def test_what_a_tag_is(name: str, box: Entrepot, clock: Clock, network: Network, upstream: Upstream) -> None:
    wrong: list[str | None] = []
    table = list(rows(name, upstream))

    def check(lines: Lines, when: str) -> None:
        for row in table:
            if row.when == when:
                mine = shown(lines, row)
                with upstream.watched() as seen:
                    reply = row.ask(lines, mine)
                wrong.append(row.wrong(reply, row.questions(seen)))

    with ExitStack() as stack:
        lines = stack.enter_context(closing(Lines(Wire(network.laptop, box.ca_file, box.address))))
        for row in table:
            assert row.served(row.ask(lines, shown(lines, row))) == "old"
        for row in table:
            stack.enter_context(change(row, upstream))
        stack.enter_context(state(name, network, upstream))
        check(lines, "within")
        clock.set(AFTER)
        check(lines, "forever")
        check(lines, "after")
        box.write_config(SOON)
        box.reload()
        wait_for(lambda: box.daemon.output().count("configuration reloaded") >= WORKERS, "a reload")
        check(lines, "soon")
        for row in table:
            if row.when == "soon" and row.cell.endswith("later"):
                wait_for(partial(is_so, lines, row), f"what has become of it: {row.change}")
    assert not any(wrong), "\n".join(["wrong cells:", *filter(None, wrong)])
