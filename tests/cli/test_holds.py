"""`entrepot hold`, `release`, `promote`, `rollback` and `history`, on a store as an engine has left it."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.images import Image, push_image
from tests.fakes.registry import FakeRegistry

from entrepot.cache.embedded import open_blobs, open_records, protected_by
from entrepot.cache.housekeeping import gc
from entrepot.cache.layout import Layout
from entrepot.cache.records import DiskRecords
from entrepot.cache.space import Limits
from entrepot.cli.holds import user
from entrepot.cli.main import run
from entrepot.engine.heldmanifests import manifest_key
from entrepot.engine.history import History
from entrepot.engine.identity import ANONYMOUS, Identity
from entrepot.engine.messages import PullRequest
from entrepot.engine.pins import Pins
from entrepot.engine.tags import TagRecord, Tags
from entrepot.headers import Headers
from entrepot.registry import mediatypes
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute

REPOSITORY = "org/app"
IMAGE = f"quay.io/{REPOSITORY}:1"
NAME = ("quay.io", REPOSITORY, "1")
HOUR, DAY = 3600.0, 86400.0
ME = user(os.getuid(), os.environ)


class Store:
    """A store in which a tag has been two images, the second one since yesterday."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.upstream = FakeRegistry()
        self.now = time.time()
        self.old = push_image(self.upstream, REPOSITORY, layers=(b"common" * 999, b"old" * 999))
        self.new = push_image(self.upstream, REPOSITORY, layers=(b"common" * 999, b"new" * 999))
        self.does(self._fill)

    def does[T](self, work: Callable[[DiskRecords], Coroutine[Any, Any, T]]) -> T:
        async def with_records() -> T:
            records = open_records(self.path)
            try:
                return await work(records)
            finally:
                await records.close()

        return asyncio.run(with_records())

    async def _fill(self, records: DiskRecords) -> None:
        for (_, digest), (body, media_type) in self.upstream.manifests.items():
            await records.put_bytes(manifest_key(digest), media_type.encode() + b"\n" + body)
        blobs = open_blobs(self.path)
        for (_, digest), content in self.upstream.blobs.items():
            part = blobs.claim(digest)
            assert part is not None
            part.reserve(len(content))
            part.write(content)
            part.commit()
        blobs.close()
        before = None
        for image, at in ((self.old, self.now - 3 * DAY), (self.new, self.now - DAY)):
            before = await self.seen(records, image, at, before)

    async def seen(self, records: DiskRecords, image: Image, at: float, before: TagRecord | None) -> TagRecord:
        registry = Catalogue.builtin().registry("quay.io")
        assert registry is not None
        route = ManifestRoute(REPOSITORY, "1")
        identity = Identity("quay.io", ANONYMOUS, anonymous=True)
        accept = Headers([("Accept", mediatypes.OCI_INDEX)])
        request = PullRequest("GET", registry, route, accept, "10.0.0.9", identity)
        record = TagRecord(image.index, mediatypes.OCI_INDEX, 100, at, at)
        key = Tags.key(request, route)
        await Tags(records).put(key, request, route, record)
        await History(records).seen(request, route, key, before, record, how="check", taken=True, limit=9)
        return record

    def pin(self) -> str:
        """The digest that the tag is held at."""

        async def read(records: DiskRecords) -> str:
            pin = Pins(records).of(*NAME)
            return "" if pin is None else pin.digest

        return self.does(read)

    def survivors(self) -> set[Digest]:
        """The blobs that are left when nearly nothing may be."""
        records = open_records(self.path)
        limits = Limits(size=4096, min_free=0, grace=0.0)
        blobs = open_blobs(self.path, limits, protected=protected_by(records))
        try:
            blobs.space.evictor.recheck_held()  # as the keeper does now and then
            gc(blobs, time.time() + 1)
            return {info.digest for info in blobs.iterate()}
        finally:
            blobs.close()
            asyncio.run(records.close())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path / "store"))
    return Store(tmp_path / "store")


type Say = Callable[..., Any]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """What a command prints for programs."""

    def command(*arguments: str) -> Any:
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return command


def test_hold_as_it_is_now(store: Store, say: Say) -> None:
    said = say("hold", IMAGE, "--why", "release 7")
    (tag,) = said["tags"]
    assert (said["by"], said["why"], said["dry_run"]) == (ME, "release 7", False)
    assert tag == {
        "image": IMAGE,
        "before": str(store.new.index),
        "after": str(store.new.index),
        "blobs": 3,
        "blobs_held": 3,
        "bytes_held": tag["bytes_held"],
    }
    assert store.pin() == str(store.new.index)
    (shown,) = say("hold")["tags"]
    assert (shown["image"], shown["why"], shown["by"]) == (IMAGE, "release 7", ME)


def test_a_dry_run_changes_nothing(store: Store, say: Say) -> None:
    for command in (("hold", IMAGE), ("rollback", IMAGE), ("hold", "quay.io/*:*")):
        assert say(*command, "--dry-run")["dry_run"]
        assert store.pin() == ""
    assert say("history", IMAGE)["acts"] == []


def test_rollback_and_release(store: Store, say: Say) -> None:
    (tag,) = say("rollback", IMAGE, "--why", "it breaks")["tags"]
    assert (tag["before"], tag["after"]) == (str(store.new.index), str(store.old.index))
    assert store.pin() == str(store.old.index)
    history = say("history", IMAGE)
    assert history["digest"] == str(store.old.index)
    assert [act["act"] for act in history["acts"]] == ["rollback"]
    assert history["acts"][0] | {"at": 0} == {
        "act": "rollback", "at": 0, "by": ME, "why": "it breaks", "pattern": "",
        "before": str(store.new.index), "after": str(store.old.index),
    }  # fmt: skip
    say("release", IMAGE)
    assert store.pin() == ""
    assert [act["act"] for act in say("history", IMAGE)["acts"]] == ["rollback", "release"]


@pytest.mark.parametrize("to", ["-1", "date", "digest", "short"])
def test_the_ways_back(to: str, store: Store, say: Say) -> None:
    old = str(store.old.index)
    day = time.strftime("%Y-%m-%d", time.gmtime(store.now - 3 * DAY))
    word = {"-1": "-1", "date": day, "digest": old, "short": old.partition(":")[2][:12]}[to]
    (tag,) = say("rollback", IMAGE, "--to", word)["tags"]
    assert tag["after"] == old


def test_what_is_held_is_not_evicted(store: Store, say: Say) -> None:
    """DESIGN rules 7 and 10: held at the old one, that stays; released, it goes as anything does."""
    say("rollback", IMAGE)
    kept = {store.old.config, *store.old.layers}
    assert store.survivors() == kept
    say("release", IMAGE)
    assert len(store.survivors()) < len(kept)


def test_patterns(store: Store, say: Say) -> None:
    said = say("hold", "quay.io/org/*", "--why", "all of it")
    assert said["pattern"] == "quay.io/org/*:*"
    assert [tag["image"] for tag in said["tags"]] == [IMAGE]
    assert store.pin() == str(store.new.index)
    assert [one["pattern"] for one in say("hold")["patterns"]] == ["quay.io/org/*:*"]
    say("release", IMAGE)  # one is let out of it
    assert store.pin() == ""
    say("hold", IMAGE)
    assert say("release", "quay.io/org/*")["tags"] == []  # that one is held by an order of its own
    assert store.pin() == str(store.new.index)
    assert say("hold")["patterns"] == []


def test_promote(store: Store, say: Say) -> None:
    say("rollback", IMAGE)
    (tag,) = say("promote", IMAGE, "--to", str(store.new.index))["tags"]
    assert (tag["before"], tag["after"]) == (str(store.old.index), str(store.new.index))
    (tag,) = say("promote", IMAGE)["tags"]
    assert tag["after"] == ""
    assert say("hold")["tags"][0]["promoted"]


def test_history(store: Store, say: Say) -> None:
    said = say("history", IMAGE)
    new, old = said["moves"]
    assert (new["digest"], new["current"]) == (str(store.new.index), True)
    assert (old["digest"], old["current"]) == (str(store.old.index), False)
    assert (new["by"], new["client"], new["how"]) == ("nobody", "10.0.0.9", "check")
    assert new["changes"] == {
        "platform": "linux/amd64",
        "added": [str(store.new.layers[1])],
        "removed": [str(store.old.layers[1])],
    }
    assert new["image"]["size"] > 0


def test_for_people(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rollback", IMAGE, "--why", "it breaks"]) == 0
    out = capsys.readouterr().out
    assert f"roll back {IMAGE}\n" in out
    assert "3 of 3 blobs held" in out
    assert run(["history", IMAGE]) == 0
    out = capsys.readouterr().out
    assert f"ordered by {ME}: it breaks" in out
    assert "  layers +sha256:" in out
    assert run(["hold"]) == 0
    assert IMAGE in capsys.readouterr().out
    assert run(["explain", IMAGE]) == 0
    out = capsys.readouterr().out
    assert f"ordered by {ME}: it breaks\n" in out


def test_the_configuration_of_an_image_is_shown(store: Store, say: Say) -> None:
    labels = {"org.opencontainers.image.version": "1.2.3", "other": "x"}
    body = json.dumps({"created": "2026-01-02T03:04:05Z", "config": {"Labels": labels}}).encode()
    path = Layout(store.path).blob(store.new.config)
    path.chmod(0o600)
    path.write_bytes(body)
    found = say("history", IMAGE)["moves"][0]["image"]["labels"]
    assert found == {"org.opencontainers.image.version": "1.2.3", "created": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["release", IMAGE], 1, "is not held"),
        (["promote", IMAGE], 1, "is not held: it follows the registry"),
        (["rollback", IMAGE, "--to", "-7"], 1, "nothing is known of"),
        (["rollback", IMAGE, "--to", "tuesday"], 2, "must be a digest, a day"),
        (["rollback", IMAGE, "--to", "2026-02-31"], 2, "there is no such day"),
        (["rollback", "quay.io/org/never:1"], 1, "has never been seen here"),
        (["release", "quay.io/nothing/*"], 1, "nothing that fits"),
        (["hold", f"quay.io/org/app@sha256:{'0' * 64}"], 2, "name the tag too"),
        (["hold", "Not A Name"], 2, "not "),
    ],
)
def test_what_cannot_be_ordered(
    words: list[str], code: int, problem: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == code
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1


def test_purge_forgets_the_history_and_keeps_the_order(store: Store, say: Say) -> None:
    say("rollback", IMAGE)
    say("purge", IMAGE)
    assert say("history", IMAGE)["moves"] == []
    assert store.pin() == str(store.old.index)

    async def left(records: DiskRecords) -> list[str]:
        return [key for key, _ in records.scan("history/")]

    assert store.does(left) == []


def test_who_it_was() -> None:
    assert user(os.getuid(), {}) == user(os.getuid(), {"SUDO_USER": ""})
    assert user(0, {"SUDO_USER": "alice"}) == "alice (as root)"
    assert user(4_000_000, {"SUDO_USER": "alice"}) == "4000000"
