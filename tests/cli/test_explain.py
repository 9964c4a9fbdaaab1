"""`entrepot explain` and `entrepot purge`, on a store as an engine has left it."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.images import push_image
from tests.fakes.registry import FakeRegistry

from entrepot.cache.embedded import open_records
from entrepot.cache.layout import Layout
from entrepot.cli.main import run
from entrepot.engine.access import Access
from entrepot.engine.heldmanifests import manifest_key
from entrepot.engine.identity import ANONYMOUS, Identity
from entrepot.engine.messages import PullRequest
from entrepot.engine.tags import TagRecord, Tags
from entrepot.headers import Headers
from entrepot.registry import mediatypes
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.manifests import Descriptor
from entrepot.registry.routes import ManifestRoute

REPOSITORY = "org/app"
IMAGE = f"quay.io/{REPOSITORY}:1"
type Tell = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "store"
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(made))
    return made


@pytest.fixture
def pulled(store: Path) -> Tell:
    """Leaves traces of a pull of `IMAGE`, some time ago, by somebody."""

    def tell(*, ago: float = 10.0, who: str = ANONYMOUS, layers: int = 2) -> None:
        asyncio.run(_pulled(store, ago, who, layers))

    return tell


async def _pulled(store: Path, ago: float, who: str, layers: int) -> None:
    upstream = FakeRegistry()
    image = push_image(upstream, REPOSITORY)
    now = time.time() - ago
    records, layout = open_records(store), Layout(store)
    registry = Catalogue.builtin().registry("quay.io")
    assert registry is not None
    for (_, digest), (body, media_type) in upstream.manifests.items():
        await records.put_bytes(manifest_key(digest), media_type.encode() + b"\n" + body)
    route = ManifestRoute(REPOSITORY, "1")
    request = PullRequest("GET", registry, route, Headers([("Accept", mediatypes.OCI_INDEX)]), "10.0.0.9")
    record = TagRecord(image.index, mediatypes.OCI_INDEX, 100, now, now - 3600)
    await Tags(records).put(Tags.key(request, route), request, route, record)
    access = Access(records, lambda: now)
    for digest in [image.config, *image.layers[:layers]]:
        path = layout.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        await access.add_member("quay.io", REPOSITORY, Descriptor("x", digest, 1), public=who == ANONYMOUS)
    await access.set_public("quay.io", REPOSITORY, public=who == ANONYMOUS)
    if who != ANONYMOUS:
        await access.grant(REPOSITORY, Identity("quay.io", who), keep=1e6)
    await records.close()


async def _down(store: Path) -> None:
    records = open_records(store)
    note = {"state": "open", "since": 1.0, "why": "refused", "confirmed": True, "at": time.time(), "by": "x"}
    await records.put("down/https://quay.io", note, ttl=30)
    await records.close()


def explained(capsys: pytest.CaptureFixture[str], image: str = IMAGE) -> str:
    assert run(["explain", image]) == 0
    return capsys.readouterr().out


def test_a_public_image_that_is_held(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled()
    out = explained(capsys)
    assert "(oci index), checked 10s ago, fresh for " in out
    assert "is that since 1h 0m" in out
    assert "3 of 3 blobs held" in out
    assert "access     public, for anyone, as of 10s ago" in out
    assert "next pull  a hit, from here without asking, for anyone\n" in out


def test_a_tag_that_is_due(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled(ago=600)
    out = explained(capsys)
    assert "due to be checked" in out
    assert "next pull  the tag is checked with upstream, then served from here, for anyone\n" in out


def test_a_private_image(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled(who="hmac")
    out = explained(capsys)
    assert "access     private, as of 10s ago; 1 credentials or accounts count now, 1 in an outage" in out
    assert "for those whom the registry has admitted\n" in out


def test_a_private_image_whose_grants_are_old(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled(who="hmac", ago=600)
    assert "next pull  whoever asks is checked with upstream first, then served from here\n" in explained(capsys)


def test_an_outage(pulled: Tell, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pulled(who="hmac", ago=600, layers=1)
    asyncio.run(_down(store))
    out = explained(capsys)
    assert "upstream   down: refused\n" in out
    assert "2 of 3 blobs held" in out
    assert "next pull  stale, from here, for those whom the registry has admitted; layers that are not held" in out


def test_what_was_never_seen(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled()
    out = explained(capsys, "quay.io/org/other:1")
    assert "tag        never seen here\n" in out
    assert "next pull  a miss: fetched from upstream, and kept\n" in out


def test_for_programs(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled()
    assert run(["explain", "--json", IMAGE]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["held"], shown["registry"], shown["readers"]["public"]) == (True, "quay.io", True)
    assert len(shown["manifests"]) == 2
    assert shown["next"].startswith("a hit")


@pytest.mark.parametrize(
    ("image", "code", "problem"),
    [
        ("Not A Name", 2, "not "),
        ("registry.nowhere.example/a:1", 2, "is not intercepted: add [registries."),
        (IMAGE, 1, "there is no store in"),
    ],
)
def test_what_cannot_be_explained(
    image: str, code: int, problem: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", image]) == code
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1


def test_purge_makes_the_registry_be_asked(pulled: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    pulled(who="hmac")
    assert run(["purge", IMAGE]) == 0
    assert capsys.readouterr().out == f"4 records of {IMAGE} forgotten\n"
    out = explained(capsys)
    assert "never seen here" in out
    assert "access     not known to be public\n" in out
    assert run(["purge", IMAGE]) == 0
    assert capsys.readouterr().out == f"nothing is known of {IMAGE}\n"


def test_purge_of_a_repository_leaves_others_alone(
    pulled: Tell, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled()

    async def note() -> None:
        records = open_records(store)
        await records.put("public/quay.io/org/apple", {"public": True, "at": 1.0})
        await records.put("public/quay.io/org/app/below", {"public": True, "at": 1.0})
        await records.close()

    asyncio.run(note())
    assert run(["purge", "--repository", "--json", IMAGE]) == 0
    assert json.loads(capsys.readouterr().out)["records"] >= 5

    async def left() -> list[str]:
        records = open_records(store)
        try:
            return [key for prefix in ("public/", "member/", "tag/", "grant/") for key, _ in records.scan(prefix)]
        finally:
            await records.close()

    assert {"public/quay.io/org/apple", "public/quay.io/org/app/below"} <= set(asyncio.run(left()))
    assert not [key for key in asyncio.run(left()) if key.startswith(f"member/quay.io/{REPOSITORY}/")]
