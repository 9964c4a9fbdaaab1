"""Requests and failures between worker and fetching process, without loss."""

import json
from dataclasses import replace
from typing import Literal

import pytest

from entrepot.cache.interface import DigestMismatch, NoRoom, StoreError, TooLarge
from entrepot.engine.identity import Identity
from entrepot.engine.messages import Answer, PullRequest, Refused
from entrepot.engine.parcel import InvalidParcel, pack, pack_failure, unpack, unpack_failure
from entrepot.engine.passes import NoPass
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.registry.routes import BlobRoute, ManifestRoute
from entrepot.upstream import errors
from entrepot.upstream.fetch import Abandoned, TransferError, WrongBytes

KNOWN = Catalogue.builtin().registry
DIGEST = Digest.of(b"layer")


def request() -> PullRequest:
    registry = KNOWN("quay.io")
    assert registry is not None
    headers = Headers([("Authorization", "Bearer t"), ("Accept", "*/*"), ("Cookie", "c"), ("User-Agent", "docker")])
    identity = Identity("quay.io", "hmac", account="account", anonymous=False, own=True)
    return PullRequest("GET", registry, BlobRoute("org/app", DIGEST, query="x=1"), headers, "10.0.0.9", identity)


def test_a_request_arrives_as_it_was_but_for_what_upstream_is_not_told() -> None:
    got = unpack(json.loads(json.dumps(pack(request()))), KNOWN)
    asked = request()
    assert (got.method, got.registry, got.route, got.client) == ("GET", asked.registry, asked.route, asked.client)
    assert list(got.headers) == [(name, value) for name, value in asked.headers if name != "Cookie"]
    assert got.identity.credential == "hmac"
    assert got.identity.own


def test_a_registry_of_a_family() -> None:
    acme = KNOWN("acme.azurecr.io")
    assert acme is not None
    route = BlobRoute("org/app", DIGEST)
    sent = PullRequest("GET", acme, route, Headers([]), "10.0.0.9")
    assert unpack(json.loads(json.dumps(pack(sent))), KNOWN).registry == acme


@pytest.mark.parametrize(
    "broken", [{}, {**pack(request()), "registry": "nowhere.example"}, {**pack(request()), "who": 5}]
)
def test_what_is_no_request(broken: dict[str, object]) -> None:
    with pytest.raises(InvalidParcel):
        unpack(broken, KNOWN)


def test_only_blobs_are_fetched() -> None:
    asked = request()
    manifest = PullRequest("GET", asked.registry, ManifestRoute("org/app", "1"), asked.headers, "10.0.0.9")
    with pytest.raises(InvalidParcel):
        pack(manifest)


@pytest.mark.parametrize(
    "failure",
    [
        NoRoom("no room"),
        TooLarge("never fits"),
        StoreError("disk"),
        TransferError("ended"),
        Abandoned("nobody"),
        errors.Unreachable("quay.io", "refused"),
        errors.Down("quay.io", "known"),
        errors.Slow("quay.io", "slow"),
        errors.TimedOut("quay.io", "late"),
        errors.LoopDetected("quay.io", "loop"),
        errors.InvalidResponse("quay.io", "html"),
        errors.TooManyRedirects("quay.io", "six"),
    ],
)
def test_a_failure_is_raised_as_it_was(failure: EntrepotError) -> None:
    got = unpack_failure(json.loads(json.dumps(pack_failure(failure))))
    assert (type(got), str(got)) == (type(failure), str(failure))


def test_a_refusal_is_upstreams_own_to_the_byte() -> None:
    body = bytes(range(256))
    answer = Answer(401, Headers([("WWW-Authenticate", 'Bearer realm="x"'), ("X", "é")]), body, "refused", "says 401")
    got = unpack_failure(json.loads(json.dumps(pack_failure(Refused(answer)))))
    assert isinstance(got, Refused)
    assert (got.answer.status, list(got.answer.headers), got.answer.body) == (401, list(answer.headers), body)
    assert (got.answer.verdict, got.answer.why) == ("refused", "says 401")


def test_a_broken_body_and_wrong_bytes() -> None:
    """The first is an upstream's trouble of some kind; the second has been dealt with there."""
    broken = unpack_failure(pack_failure(errors.BrokenBody("quay.io", "cut", received=5)))
    assert type(broken) is errors.UpstreamError
    assert type(unpack_failure(pack_failure(DigestMismatch(DIGEST, "another", 5)))) is WrongBytes


def test_what_is_no_failure() -> None:
    assert type(unpack_failure({})) is TransferError
    assert type(unpack_failure({"kind": "Refused", "status": "x"})) is TransferError


@pytest.mark.parametrize("asks", ["nobody", "box"])
def test_what_is_asked_in_another_name_carries_no_credential(asks: Literal["nobody", "box"]) -> None:
    """The fetching process has its own."""
    packed = json.dumps(pack(replace(request(), asks=asks)))
    assert "Bearer" not in packed
    got = unpack(json.loads(packed), KNOWN)
    assert (got.asks, got.route) == (asks, request().route)
    assert "authorization" not in got.headers


def test_in_the_name_of_somebody_else() -> None:
    with pytest.raises(InvalidParcel):
        unpack({**pack(request()), "asks": "root"}, KNOWN)


def test_a_token_service_in_trouble_is_told_apart() -> None:
    assert type(unpack_failure(pack_failure(NoPass("auth.quay.io", "gives no token (500)")))) is NoPass
