"""Tags under control (rule 7): what clients get when a tag is held, put back, let go, or asked for by a date.

Everybody's Entrepot checks tags once in a minute: what changes at the next pull here, changes because of an order.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, LOGIN, Clients
from tests.lab.contents import ANY_MANIFEST
from tests.lab.net import CommandFailed, Network
from tests.lab.product import Entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

ASKS = 6  # more than there are workers


def gets(client: str, builder: Clients, reference: str, image: images.Image) -> bool:
    """Whether a client of this kind that has nothing pulls this image."""
    builder[client].forget()
    builder[client].pull(reference)
    return builder[client].held(reference).is_same_as(image)


@pytest.mark.parametrize("kind", KINDS)
def test_the_story_of_a_tag(kind: str, builder: Clients, entrepot: Entrepot, upstream: Upstream) -> None:
    """Upstream moves it, builds keep the old one; it is promoted, breaks, is put back; upstream deletes it."""
    first, second = images.build(), images.build()
    repository = upstream.publish(world.QUAY, first)
    name = repository.image
    assert gets(kind, builder, name, first)
    entrepot.command("hold", name, "--why", "release 7")
    upstream.move(repository, second)
    assert gets(kind, builder, name, first)
    entrepot.command("promote", name)
    assert gets(kind, builder, name, second)
    entrepot.command("rollback", name, "--why", "it breaks")
    assert gets(kind, builder, name, first)
    upstream.untag(repository)
    assert gets(kind, builder, name, first)
    upstream.move(repository, second)
    entrepot.command("release", name)
    assert gets(kind, builder, name, second)

    told = json.loads(entrepot.command("history", name, "--json"))
    assert [act["act"] for act in told["acts"]] == ["hold", "promote", "rollback", "release"]
    assert [act["why"] for act in told["acts"]] == ["release 7", "", "it breaks", ""]
    assert {act["by"] for act in told["acts"]} == {"root"}
    assert [move["digest"] for move in reversed(told["moves"])][:3] == [first.digest, second.digest, first.digest]
    builder[kind].forget()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_tag_was_today(kind: str, builder: Clients, upstream: Upstream) -> None:
    """By any client, under the real name."""
    image = images.build()
    repository = upstream.publish(world.GITLAB, image)
    assert gets("skopeo", builder, repository.image, image)
    day = f"{repository.image}.{time.strftime('%Y%m%d', time.gmtime())}"
    assert gets(kind, builder, day, image)
    builder[kind].forget()


@pytest.fixture
def always_checking(own_entrepot: Entrepot) -> Iterator[Entrepot]:
    """One that asks the registry at every pull."""
    own_entrepot.stop()
    own_entrepot.write_config('[policy]\ntag_ttl = "0s"\n')
    own_entrepot.start()
    yield own_entrepot


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag, asked for by hand."""

    wire: Wire
    repository: world.Repository
    login: tuple[str, str] | None = None

    def digest(self, tag: str = world.TAG) -> str:
        """What every worker says it is; the status, if that is none."""
        shown = self.wire.authorization(self.repository, login=self.login)
        target = self.repository.target(f"manifests/{tag}")
        found = set()
        for _ in range(ASKS):
            reply = self.wire.ask(self.repository.host, target, {**ANY_MANIFEST, **shown})
            found.add(reply.headers["Docker-Content-Digest"] if reply.status == 200 else str(reply.status))
        (one,) = found
        return str(one)


def test_a_held_tag_is_not_asked_for(always_checking: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """In any worker, after a restart, and whatever is pushed upstream; the log says that it is held."""
    old, new = images.build(style="oci"), images.build(style="oci")
    tag = Tag(own_wire, upstream.publish(world.QUAY, old))
    assert tag.digest() == old.digest
    always_checking.command("hold", tag.repository.image)
    upstream.move(tag.repository, new)
    with upstream.watched() as seen:
        assert tag.digest() == old.digest
    assert [each for each in seen if each.is_manifest] == []
    assert "verdict=held" in always_checking.daemon.output()
    always_checking.stop()
    always_checking.start()
    assert tag.digest() == old.digest
    always_checking.command("release", tag.repository.image)
    assert tag.digest() == new.digest


def test_in_an_outage(always_checking: Entrepot, own_wire: Wire, network: Network, upstream: Upstream) -> None:
    """Rule 5: what is held by an order, what a tag was, and an order that is given meanwhile."""
    old, new = images.build(style="oci"), images.build(style="oci")
    tag = Tag(own_wire, upstream.publish(world.MICROSOFT, old))
    assert tag.digest() == old.digest
    upstream.move(tag.repository, new)
    assert tag.digest() == new.digest
    always_checking.command("hold", tag.repository.image)
    day = f"1.{time.strftime('%Y%m%d', time.gmtime())}"
    with network.unplugged():
        assert (tag.digest(), tag.digest(day)) == (new.digest, new.digest)
        always_checking.command("rollback", tag.repository.image)
        assert (tag.digest(), tag.digest(day)) == (old.digest, old.digest)


def test_a_pattern_holds_tags_as_they_are_first_seen(
    always_checking: Entrepot, own_wire: Wire, upstream: Upstream
) -> None:
    old, new = images.build(style="oci"), images.build(style="oci")
    always_checking.command("hold", "quay.io/org/*:*-slim", "--why", "base images")
    tag = Tag(own_wire, upstream.publish(world.QUAY, old))
    upstream.move(tag.repository, old, "3-slim")
    assert tag.digest("3-slim") == tag.digest() == old.digest
    for name in ("3-slim", world.TAG):
        upstream.move(tag.repository, new, name)
    assert (tag.digest("3-slim"), tag.digest()) == (old.digest, new.digest)


def test_what_is_private_stays_private(always_checking: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """Rule 3: neither an order nor the name of a day gets it to whom the registry does not admit."""
    image = images.build(style="oci")
    repository = upstream.publish(world.BASIC, image, private=True)
    owner, stranger = Tag(own_wire, repository, LOGIN), Tag(own_wire, repository, (world.BOB, world.BOBS))
    assert owner.digest() == image.digest
    always_checking.command("hold", repository.image)
    day = f"1.{time.strftime('%Y%m%d', time.gmtime())}"
    assert (owner.digest(), owner.digest(day)) == (image.digest, image.digest)
    for name in (world.TAG, day):
        assert stranger.digest(name) in {"401", "403", "404"}
        assert Tag(own_wire, repository).digest(name) == "401"


def test_upstreams_own_tag_of_a_dated_name(always_checking: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    image, own = images.build(style="oci"), images.build(style="oci")
    tag = Tag(own_wire, upstream.publish(world.QUAY, image))
    assert tag.digest() == image.digest
    day = f"1.{time.strftime('%Y%m%d', time.gmtime())}"
    assert tag.digest(day) == image.digest
    assert f"what {world.TAG} was" in always_checking.command(
        "explain", f"{tag.repository.image.rpartition(':')[0]}:{day}"
    )
    upstream.move(tag.repository, own, day)
    time_out = time.monotonic() + 15  # that it is not there is remembered for some seconds
    while tag.digest(day) != own.digest:
        assert time.monotonic() < time_out


def test_cooldown(own_entrepot: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    """A tag that upstream has moved stays what it was; what an operator promotes does not wait."""
    own_entrepot.stop()
    own_entrepot.write_config('[policy]\ntag_ttl = "0s"\ncooldown = "72h"\n')
    own_entrepot.start()
    old, new = images.build(style="oci"), images.build(style="oci")
    tag = Tag(own_wire, upstream.publish(world.QUAY, old))
    assert tag.digest() == old.digest
    upstream.move(tag.repository, new)
    assert tag.digest() == old.digest
    assert "verdict=held" in own_entrepot.daemon.output()
    assert "why=cooldown" in own_entrepot.daemon.output()
    told = json.loads(own_entrepot.command("history", tag.repository.image, "--json"))
    assert (told["awaits"], told["moves"][0]["taken"]) == (new.digest, 0)
    own_entrepot.command("promote", tag.repository.image)
    assert tag.digest() == new.digest


def test_denied(own_entrepot: Entrepot, own_wire: Wire, upstream: Upstream) -> None:
    image = images.build(style="oci")
    denied, fine = upstream.publish(world.QUAY, image), upstream.publish(world.QUAY, image)
    own_entrepot.stop()
    own_entrepot.write_config(f'[policy]\ndeny = ["quay.io/{denied.path}:*"]\n')
    own_entrepot.start()
    shown = own_wire.authorization(denied)
    reply = own_wire.ask(denied.host, denied.target("manifests/1"), {**ANY_MANIFEST, **shown})
    assert (reply.status, reply.error_codes) == (403, ["DENIED"])
    assert denied.path.encode() in reply.body
    assert Tag(own_wire, fine).digest() == image.digest


def test_a_client_says_why_it_is_denied(builder: Clients, entrepot: Entrepot, upstream: Upstream) -> None:
    """Only what is asked for counts: the rules are everybody's, so a name that nobody else uses is denied."""
    repository = world.new_repository(world.QUAY)
    entrepot.write_config(f'[policy]\ndeny = ["quay.io/{repository.path}"]\n')
    entrepot.reload()
    upstream.move(repository, images.build())
    try:
        with pytest.raises(CommandFailed, match="denied here by"):
            for _ in range(20):  # until all workers have heard of it
                builder["podman"].pull(repository.image)
    finally:
        entrepot.write_config()
        entrepot.reload()
