"""Who may read what is held (rule 3): what the registry admits, as the registry says it, and nobody else."""

import pytest
from tests.lab import images, world
from tests.lab.clients import LOGIN, Clients
from tests.lab.net import CommandFailed
from tests.lab.upstream import Upstream
from tests.lab.wire import Reply, Wire

pytestmark = pytest.mark.lab

PRIVATE = pytest.mark.parametrize(
    "registry", [world.DOCKER_HUB, world.QUAY, world.GITLAB, world.BASIC], ids=lambda each: str(each.name)
)


def refusal(reply: Reply) -> tuple[object, ...]:
    return reply.status, reply.headers["WWW-Authenticate"], reply.headers["Content-Type"], reply.body


@PRIVATE
def test_a_held_private_image_is_served_to_its_owner_only(
    registry: world.Registry, builder: Clients, laptop: Clients, upstream: Upstream
) -> None:
    image = images.build()
    reference = upstream.publish(registry, image, private=True).image

    with upstream.watched() as seen, pytest.raises(CommandFailed):
        laptop["podman"].pull(reference)
    assert seen.blob_gets() == []

    builder["podman"].pull(reference, LOGIN)
    assert builder["podman"].held(reference).is_same_as(image)
    builder["podman"].forget()
    with upstream.watched() as seen:
        builder["podman"].pull(reference, LOGIN)
    assert (seen.blob_gets(), seen.manifest_gets()) == ([], [])
    builder["podman"].forget()

    for login in (None, ("user", "wrong")):
        for kind in ("skopeo", "podman", "containerd"):
            with pytest.raises(CommandFailed):
                laptop[kind].pull(reference, login)


@PRIVATE
def test_refusals_are_what_upstream_says(
    registry: world.Registry, builder: Clients, wire: Wire, direct_wire: Wire, upstream: Upstream
) -> None:
    image = images.build()
    repository = upstream.publish(registry, image, private=True)
    parts = ("manifests/1", f"manifests/{image.digest}", f"blobs/{image.config.digest}")
    targets = [repository.target(part) for part in parts]
    builder["skopeo"].pull(repository.image, LOGIN)
    for target in (*targets, "/v2/"):
        ours, theirs = (each.ask(registry.host, target) for each in (wire, direct_wire))
        assert ours.status == 401
        assert refusal(ours) == refusal(theirs)
    if registry.auth != "basic":
        weak = wire.authorization(repository)  # a token, as anybody gets it, that allows nothing
        for target in targets:
            ours, theirs = (each.ask(registry.host, target, weak) for each in (wire, direct_wire))
            assert refusal(ours) == refusal(theirs)


def test_a_wrong_password_is_refused_by_the_token_service(wire: Wire, direct_wire: Wire) -> None:
    wrong = {"Authorization": "Basic dXNlcjp3cm9uZw=="}
    for host, target in (("auth.docker.io", "/token?service=registry.docker.io"), ("gitlab.com", "/jwt/auth")):
        assert refusal(wire.ask(host, target, wrong)) == refusal(direct_wire.ask(host, target, wrong))


def test_a_digest_opens_no_other_repository(builder: Clients, wire: Wire, upstream: Upstream) -> None:
    """Who knows the digest of a private blob or manifest gets it under no public name, nor at another registry."""
    secret, public = images.build(style="oci"), images.build(style="oci")
    builder["skopeo"].pull(upstream.publish(world.QUAY, secret, private=True).image, LOGIN)
    targets = (f"blobs/{secret.layer_digests[0]}", f"blobs/{secret.config.digest}", f"manifests/{secret.digest}")
    for registry in (world.QUAY, world.GHCR, world.MICROSOFT):
        repository = upstream.publish(registry, public)
        builder["skopeo"].pull(repository.image)
        anyone = wire.authorization(repository)
        for target in targets:
            reply = wire.ask(registry.host, repository.target(target), anyone)
            assert reply.status == 404, (registry.name, target)
            assert reply.error_codes in (["BLOB_UNKNOWN"], ["MANIFEST_UNKNOWN"])
        allowed = wire.ask(registry.host, repository.target(f"blobs/{public.config.digest}"), anyone)
        assert (allowed.status, allowed.body) == (200, public.config.data)


def test_a_token_for_one_repository_opens_no_other(builder: Clients, wire: Wire, upstream: Upstream) -> None:
    pair = [images.build(style="oci"), images.build(style="oci")]
    repositories = [upstream.publish(world.GITLAB, image, private=True) for image in pair]
    for each in repositories:
        builder["skopeo"].pull(each.image, LOGIN)
    headers = wire.authorization(repositories[0], login=LOGIN)
    for image, repository, status in zip(pair, repositories, (200, 401), strict=True):
        target = repository.target(f"blobs/{image.config.digest}")
        assert wire.ask(repository.host, target, headers).status == status


def test_what_is_not_there_is_not_there(builder: Clients, wire: Wire, direct_wire: Wire, upstream: Upstream) -> None:
    repository = upstream.publish(world.MICROSOFT, images.build())
    digest = images.digest_of(b"nothing has this digest")
    for missing in ("manifests/missing", f"manifests/{digest}", f"blobs/{digest}"):
        ours, theirs = (each.ask(repository.host, repository.target(missing)) for each in (wire, direct_wire))
        assert ours.status == 404
        assert (ours.status, ours.error_codes) == (theirs.status, theirs.error_codes)
