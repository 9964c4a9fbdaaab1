"""Answers that are ready: repeated without the engine, and only as long as nothing has changed."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from tests.addons.conftest import NAME, Box
from tests.addons.test_pull import ACCEPT

from entrepot.addons.ready import AGAIN, LARGEST, LIFETIME, Ready, ReadyAnswers
from entrepot.cache.embedded import open_records
from entrepot.cli.logs import configure
from entrepot.config.model import Log
from entrepot.counters import labelled
from entrepot.engine.messages import Answer, PullRequest

HEAD = b"GET /v2/ HTTP/1.1\r\n\r\n"


class Changing:
    """A clock and a version that change when told."""

    def __init__(self) -> None:
        self.now, self.version = 1000.0, 1
        self.answers = ReadyAnswers(lambda: self.version, lambda: self.now)

    def keep(self, name: str = "a.test", head: bytes = HEAD, wire: bytes = b"x", *, version: int | None = None) -> None:
        ready = Ready(wire, 1, True, self.answers.until(), (), "hit", "requests{}")
        self.answers.put(name, head, ready, self.version if version is None else version)

    def has(self, name: str = "a.test", head: bytes = HEAD) -> bool:
        return self.answers.get(name, head) is not None


def test_it_is_for_these_very_bytes_on_a_connection_for_this_name() -> None:
    one = Changing()
    one.keep()
    assert one.has()
    assert not one.has("b.test")
    assert not one.has(head=HEAD.replace(b"GET", b"HEAD"))


def test_it_ends_soon_and_with_the_second() -> None:
    one = Changing()
    one.keep()
    one.now += LIFETIME - 0.01
    assert one.has()
    one.now += 0.02
    assert not one.has()
    one.now = 2000.9  # `Date` and `Age` change with the second
    one.keep()
    one.now = 2001.0
    assert not one.has()


def test_it_ends_when_anything_has_been_written() -> None:
    one = Changing()
    one.keep()
    one.version += 1
    assert not one.has()
    one.version -= 1
    assert not one.has()


def test_what_was_worked_out_before_something_was_written_is_not_kept() -> None:
    one = Changing()
    one.keep(version=0)
    assert not one.has()


def test_what_is_asked_once_is_not_worth_it() -> None:
    one = Changing()
    asked = [one.answers.is_worth_it(name, head) for name in ("a.test", "b.test") for head in (HEAD, HEAD, HEAD + b"x")]
    assert asked == [False, True, False] * 2
    one.now += AGAIN
    assert not one.answers.is_worth_it("a.test", HEAD)


def test_settings_that_change_end_it() -> None:
    one = Changing()
    one.keep()
    one.answers.clear()
    assert not one.has()


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Changing()
    one.keep(wire=b"x" * (LARGEST + 1))
    assert not one.has()
    monkeypatch.setattr("entrepot.addons.ready.MOST", 3)
    for n in range(10):
        one.keep(head=b"%d" % n)
        assert sum(one.has(head=b"%d" % each) for each in range(10)) <= 3
    monkeypatch.setattr("entrepot.addons.ready.MOST_BYTES", 1000)
    for n in range(10):
        one.keep(head=b"%d" % n, wire=b"x" * 400)
        assert sum(one.has(head=b"%d" % each) for each in range(10)) <= 3


class Logged(io.StringIO):
    """The log as a worker has it: without pytest's handlers beside, from `begin` on."""

    def begin(self) -> None:
        configure(Log(format="console"), "proxy-0", self)


@pytest.fixture
def logged() -> Iterator[Logged]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield Logged()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def asked(box: Box, monkeypatch: pytest.MonkeyPatch) -> list[PullRequest]:
    """What the engine is asked."""
    seen: list[PullRequest] = []
    answer = box.worker.engine.answer

    async def spied(request: PullRequest) -> Answer:
        seen.append(request)
        return await answer(request)

    monkeypatch.setattr(box.worker.engine, "answer", spied)
    monkeypatch.setattr("entrepot.addons.ready.LIFETIME", 60.0)
    monkeypatch.setattr(box.worker.pulls.ready, "until", lambda: float("inf"))  # a second may be over any time
    return seen


async def warmed(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    """Pulled until the next one is ready: the first pulls still write what they have learnt."""
    logged.begin()
    client = await box.connect()
    for _ in range(50):
        before = len(asked)
        await client.get(box.manifest(), ACCEPT)
        if len(asked) == before:
            return
        await asyncio.sleep(0.002)  # what other processes write is seen a millisecond later
    raise AssertionError("it never is")


async def test_the_same_again_is_no_question(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    first, second = await box.connect(), await box.connect()
    asked.clear()
    replies = [await client.get(box.manifest(), ACCEPT) for client in (first, first, second)]
    assert asked == []
    assert len({(reply.status, reply.body, tuple(reply.headers.items())) for reply in replies}) == 1
    assert replies[0].status == 200
    await first.get(box.manifest())  # with another head
    assert len(asked) == 1


async def test_another_credential_is_another_question(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    asked.clear()
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT, "Authorization: Basic eDp5")
    assert [request.headers.get("authorization") for request in asked] == ["Basic eDp5"]


async def test_another_process_that_writes_ends_it(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    asked.clear()
    other = open_records(box.store)
    await other.put("something", {"new": True})
    await other.close()
    await asyncio.sleep(0.002)  # DESIGN: what others write is seen a millisecond later
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT)
    assert len(asked) == 1


async def test_each_one_is_logged_and_counted(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT)
    await asyncio.sleep(0.1)  # they are written together
    asked.clear()
    logged.truncate(0)
    tally = labelled("requests", registry=NAME, verdict="hit", kind="manifest")
    before = [box.worker.counters._counts[name] for name in ("requests_hit", tally)]
    for _ in range(5):
        await client.get(box.manifest(), ACCEPT)
    assert asked == []
    while logged.getvalue().count("\n") < 5:
        await asyncio.sleep(0.01)
    lines = {line.split(" ", 2)[2] for line in logged.getvalue().replace("\0", "").splitlines()}
    (line,) = lines
    for part in ("proxy-0: client=127.0.0.1", f"host={NAME}", "verdict=hit", "status=200", "upstream=0", "why="):
        assert part in line
    assert [box.worker.counters._counts[name] for name in ("requests_hit", tally)] == [count + 5 for count in before]


async def test_sent_ahead_they_are_answered_in_order(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    client = await box.connect()
    for target in (box.manifest(), box.blob(box.image.config), box.manifest()):
        client.ask("GET", target, *([ACCEPT] if "manifests" in target else []))
    kinds = [(await client.reply()).headers["content-type"] for _ in range(3)]
    assert kinds[0] == kinds[2] != kinds[1]


async def test_a_head_has_no_body_and_close_means_close(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    logged.begin()
    for _ in range(50):
        before = len(asked)
        client = await box.connect()
        client.ask("HEAD", box.manifest(), ACCEPT, "Connection: close")
        reply = await client.reply(head_only=True)
        assert (reply.status, await client.reader.read()) == (200, b"")
        assert reply.headers["connection"] == "close"
        if len(asked) == before:
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never is ready")


async def test_a_reload_ends_it(box: Box, asked: list[PullRequest], logged: Logged) -> None:
    await warmed(box, asked, logged)
    asked.clear()
    box.worker.reconfigure(box.worker.pulls.catalogue, box.worker.engine._manifests.policy)
    client = await box.connect()
    await client.get(box.manifest(), ACCEPT)
    assert len(asked) == 1
