"""Records of tags by class of `Accept` (DESIGN rule 4)."""

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.messages import PullRequest
from entrepot.engine.tags import TagRecord, Tags
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.registry.mediatypes import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from entrepot.registry.routes import ManifestRoute

ROUTE = ManifestRoute("org/app", "1")


def asking(*accept: str) -> PullRequest:
    found = Catalogue.builtin().match("quay.io")
    assert found is not None
    return PullRequest("GET", found.registry, ROUTE, Headers([("Accept", value) for value in accept]), "127.0.0.1")


def record(content: bytes = b"m", media_type: str = OCI_INDEX, at: float = 1.0) -> TagRecord:
    return TagRecord(Digest.of(content), media_type, len(content), at, at)


async def put(tags: Tags, request: PullRequest, one: TagRecord) -> TagRecord:
    return await tags.put(tags.key(request, ROUTE), request, ROUTE, one)


def test_the_order_and_the_lines_of_accept_do_not_matter() -> None:
    key = Tags.key(asking(OCI_INDEX, OCI_MANIFEST), ROUTE)
    assert key == Tags.key(asking(f"{OCI_MANIFEST};q=0.5, {OCI_INDEX}"), ROUTE)
    assert key != Tags.key(asking(OCI_MANIFEST), ROUTE)


async def test_a_digest_that_stays_keeps_the_date_of_its_move() -> None:
    tags = Tags(MemoryRecords())
    await put(tags, asking(OCI_INDEX), record(at=5))
    assert (await put(tags, asking(OCI_INDEX), record(at=9))).moved == 5
    assert (await put(tags, asking(OCI_INDEX), record(b"new", at=11))).moved == 11
    found = tags.get(tags.key(asking(OCI_INDEX), ROUTE))
    assert found is not None
    assert (found.digest, found.checked, found.moved) == (Digest.of(b"new"), 11, 11)


async def test_others_are_given_what_they_take_the_latest_first() -> None:
    tags = Tags(MemoryRecords())
    await put(tags, asking(DOCKER_MANIFEST), record(b"docker", DOCKER_MANIFEST, 30))
    await put(tags, asking(OCI_INDEX), record(b"old", OCI_INDEX, 10))
    await put(tags, asking(OCI_INDEX, OCI_MANIFEST), record(b"oci", OCI_INDEX, 20))

    def digests(*accept: str) -> list[Digest]:
        return [found.digest for found in tags.others(asking(*accept), ROUTE)]

    assert digests("*/*") == [Digest.of(b"docker"), Digest.of(b"oci"), Digest.of(b"old")]
    assert digests() == digests("*/*")
    assert digests(OCI_INDEX, "application/json") == [Digest.of(b"oci"), Digest.of(b"old")]
    assert digests(OCI_MANIFEST) == []
    assert tags.others(asking("*/*"), ManifestRoute("org/app", "2")) == []


def test_a_record_that_is_none() -> None:
    assert TagRecord.load(None) is None
    assert TagRecord.load({"digest": 5}) is None


async def test_a_tag_that_was_pushed_is_to_be_checked_whatever_the_class() -> None:
    tags = Tags(MemoryRecords())
    await put(tags, asking(OCI_INDEX), record(at=10))
    await put(tags, asking(OCI_MANIFEST), record(b"one", OCI_MANIFEST, 20))
    await tags.forget("quay.io", "org/app", "1")
    for accept in (OCI_INDEX, OCI_MANIFEST):
        found = tags.get(tags.key(asking(accept), ROUTE))
        assert found is not None
        assert found.checked == 0.0
    await tags.forget("quay.io", "org/app", "never seen")
