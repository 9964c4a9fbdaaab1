import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from entrepot.cache.embedded import open_records
from entrepot.cli.images import Held, as_table, held
from entrepot.cli.main import run

INDEX = "application/vnd.oci.image.index.v1+json"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def record(tag: str = "1", checked: float = 100.0, digest: str = DIGEST, **changes: object) -> Mapping[str, object]:
    return {
        "registry": "quay.io",
        "repository": "org/app",
        "tag": tag,
        "digest": digest,
        "media_type": INDEX,
        "size": 1536,
        "checked": checked,
        "moved": 50.0,
        **changes,
    }


def test_one_line_for_each_image_with_its_latest_check() -> None:
    records = [
        ("tag/quay.io/org/app/2/aa", record("2")),
        ("tag/quay.io/org/app/1/aa", record(checked=100)),
        ("tag/quay.io/org/app/1/bb", record(checked=200)),
        ("tag/quay.io/org/app/1/cc", record(checked=150)),
        ("tag/quay.io/org/app/1/dd", record(checked=300, digest="sha256:ff")),
    ]
    assert held(records) == [
        Held("quay.io/org/app:1", "sha256:ff", INDEX, 1536, 300, 50.0),
        Held("quay.io/org/app:1", DIGEST, INDEX, 1536, 200, 50.0),
        Held("quay.io/org/app:2", DIGEST, INDEX, 1536, 100.0, 50.0),
    ]


@pytest.mark.parametrize("broken", [{}, record(size="x"), {"registry": "quay.io"}])
def test_records_that_are_not_as_they_should_be_are_left_out(broken: Mapping[str, object]) -> None:
    assert held([("tag/x", broken), ("tag/y", record())]) == held([("tag/y", record())])


def test_the_table() -> None:
    images = [
        Held("quay.io/org/app:1", DIGEST, INDEX, 1536, 100.0, 50.0),
        Held("ghcr.io/a:b", "sha256:ff", "application/vnd.example+json", 5, 40.0, 50.0),
    ]
    assert list(as_table(images, 160.0)) == [
        "IMAGE              DIGEST               TYPE              MANIFEST  CHECKED",
        "quay.io/org/app:1  sha256:0123456789ab  oci index         1.5 KiB   1m 0s ago",
        "ghcr.io/a:b        sha256:ff            vnd.example+json  5 B       2m 0s ago",
    ]


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real one, with two tags and a record of another kind."""
    records = open_records(tmp_path)
    await records.put("tag/quay.io/org/app/1/aa", record(checked=time.time()))
    await records.put("tag/quay.io/org/app/2/aa", record("2", checked=time.time()))
    await records.put("grant/x", {"registry": "quay.io"})
    await records.close()
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path))
    return tmp_path


async def test_for_people(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["IMAGE", "quay.io/org/app:1", "quay.io/org/app:2"]


async def test_for_programs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["images", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["image"] for one in shown] == ["quay.io/org/app:1", "quay.io/org/app:2"]
    assert shown[0]["digest"] == DIGEST


def test_nothing_is_made_where_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENTREPOT_STORE_PATH", str(tmp_path / "none"))
    assert run(["images"]) == 0
    assert capsys.readouterr().out == f"no image is held in {tmp_path}/none\n"
    assert run(["images", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert list(tmp_path.iterdir()) == []
