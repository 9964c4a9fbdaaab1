"""Orders, histories, dated names and rules as pure values."""

from datetime import UTC, datetime

import pytest

from entrepot.engine.dated import dated
from entrepot.engine.decree import NotPossible, NotUnderstood, Order, State, hold, promote, release, rollback
from entrepot.engine.history import Move, at, before, with_move
from entrepot.engine.patterns import fits, fits_repository
from entrepot.engine.pins import Pin
from entrepot.engine.rules import reason
from entrepot.engine.tags import TagRecord
from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest

A, B, C = (Digest.of(name.encode()) for name in "abc")
ORDER = Order(100.0, "alice", "because")


def move(digest: Digest, seen: float, *, taken: bool = True) -> Move:
    return Move(str(digest), mediatypes.OCI_INDEX, 1, seen, seen, seen if taken else 0.0, "check", "nobody", "10.0.0.1")


def state(*moves: Move, pin: Pin | None = None, record: TagRecord | None = None) -> State:
    latest = Digest.parse(moves[-1].digest) if moves else A
    record = record or TagRecord(latest, mediatypes.OCI_INDEX, 1, 50.0, 10.0)
    return State("quay.io", "org/app", "1", pin, pin, {"x": record}, {"x": moves} if moves else {})


class TestDated:
    @pytest.mark.parametrize(
        ("text", "tag", "day"),
        [("1.20261124", "1", "2026-11-24T00:00"), ("v1.2-slim.20261124T1530", "v1.2-slim", "2026-11-24T15:30")],
    )
    def test_what_it_names(self, text: str, tag: str, day: str) -> None:
        found = dated(text)
        assert found is not None
        assert found.tag == tag
        assert found.start == datetime.fromisoformat(f"{day}+00:00").astimezone(UTC).timestamp()
        assert found.until - found.start == (60.0 if "T" in text else 86400.0)

    @pytest.mark.parametrize(
        "text",
        ["1", "20261124", "1.2026112", "1.20261324", "1.20260230", "1.20261124T2460", "1-20261124"],
    )
    def test_other_tags(self, text: str) -> None:
        assert dated(text) is None


class TestHistory:
    def test_nothing_new_is_no_move(self) -> None:
        moves = (move(A, 1.0),)
        assert with_move(moves, move(A, 2.0), 9) is None
        assert with_move(moves, move(B, 2.0), 9) == (*moves, move(B, 2.0))

    def test_what_waited_is_taken(self) -> None:
        found = with_move((move(A, 1.0), move(B, 2.0, taken=False)), move(B, 5.0), 9)
        assert found is not None
        assert (found[-1].seen, found[-1].taken) == (2.0, 5.0)

    def test_the_oldest_goes(self) -> None:
        assert with_move((move(A, 1.0), move(B, 2.0)), move(C, 3.0), 2) == (move(B, 2.0), move(C, 3.0))

    @pytest.mark.parametrize(("moment", "digest"), [(1.0, None), (1.5, A), (2.5, A), (3.5, C)])
    def test_what_it_was(self, moment: float, digest: Digest | None) -> None:
        moves = (move(A, 1.0), move(B, 2.0, taken=False), move(C, 3.0))
        found = at(moves, moment)
        assert (found and found.digest) == (str(digest) if digest else None)

    def test_what_it_was_before(self) -> None:
        moves = (move(A, 1.0), move(B, 2.0), move(A, 3.0), move(C, 4.0), move(B, 4.0))
        assert [one.digest for one in before(moves, str(B))] == [str(C), str(A)]


class TestOrders:
    def test_hold_keeps_what_other_classes_get(self) -> None:
        index = TagRecord(A, mediatypes.OCI_INDEX, 1, 50.0, 10.0)
        image = TagRecord(B, mediatypes.OCI_MANIFEST, 1, 60.0, 10.0)
        found = hold(State("quay.io", "org/app", "1", records={"x": index, "y": image}), "", ORDER)
        assert found.pin is not None
        assert (found.pin.digest_for("x"), found.pin.digest_for("y"), found.pin.digest_for("z")) == (A, B, A)
        assert (found.pin.by, found.pin.why) == ("alice", "because")

    def test_hold_at_a_digest_is_for_all(self) -> None:
        found = hold(state(move(A, 1.0)), str(C), ORDER)
        assert found.pin is not None
        assert found.pin.digests() == {str(C)}
        assert found.changes

    def test_release_of_what_a_pattern_holds_leaves_an_exemption(self) -> None:
        found = release(state(move(A, 1.0), pin=Pin(str(A))), ORDER, covered=True)
        assert found.pin is not None
        assert found.pin.free
        assert release(state(move(A, 1.0), pin=Pin(str(A))), ORDER, covered=False).pin is None

    def test_promote_keeps_the_digest_until_upstream_has_said_its_own(self) -> None:
        found = promote(state(move(A, 1.0), pin=Pin(str(A), source="*:*")), "latest", ORDER)
        assert found.pin is not None
        assert (found.pin.digest, found.pin.pending, found.pin.source) == (str(A), True, "*:*")

    def test_promote_of_what_waits(self) -> None:
        record = TagRecord(A, mediatypes.OCI_INDEX, 1, 50.0, 10.0, str(B))
        waiting = state(move(A, 1.0), move(B, 2.0, taken=False), record=record)
        assert promote(waiting, "latest", ORDER).checked == 0.0
        with pytest.raises(NotPossible, match="entrepot hold"):
            promote(waiting, str(C), ORDER)

    def test_rollback_is_from_what_clients_get(self) -> None:
        past = (move(A, 1.0), move(B, 2.0), move(C, 3.0))
        assert rollback(state(*past), "-1", ORDER).after == str(B)
        assert rollback(state(*past), "-2", ORDER).after == str(A)
        assert rollback(state(*past, pin=Pin(str(B))), "-1", ORDER).after == str(C)

    def test_rollback_to_the_beginning_of_several_digests(self) -> None:
        alike = [Digest("sha256", "abcdef" + letter * 58) for letter in "12"]
        with pytest.raises(NotUnderstood, match="could be"):
            rollback(state(*(move(one, at) for at, one in enumerate(alike, 1))), "abcdef", ORDER)


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "tag", "repository"),
        [
            ("docker.io/library/*:*-slim", True, True),
            ("docker.io/library/nginx:1-slim", True, True),
            ("docker.io/library/nginx", True, True),
            ("docker.io/*", True, True),
            ("*:1-slim", True, True),
            ("docker.io/library/nginx:2", False, True),
            ("docker.io/library/ngin", False, False),
            ("quay.io/*:*", False, False),
        ],
    )
    def test_fits(self, pattern: str, tag: bool, repository: bool) -> None:
        assert fits(pattern, "docker.io", "library/nginx", "1-slim") is tag
        assert fits_repository(pattern, "docker.io", "library/nginx") is repository

    def test_a_port_is_no_tag(self) -> None:
        assert fits("registry.example:5000/*", "registry.example:5000", "a", "1")


class TestRules:
    @pytest.mark.parametrize(
        ("deny", "allow", "reference", "denied"),
        [
            (("quay.io/org/*",), (), "1", True),
            (("quay.io/org/*",), (), None, True),
            (("quay.io/org/*:1",), (), "1", True),
            (("quay.io/org/*:1",), (), "1.20261124", True),
            (("quay.io/org/*:1",), (), "2", False),
            (("quay.io/org/*:1",), (), None, False),
            (("quay.io/org/*:1",), (), A, True),  # seen under 1 only
            (("quay.io/org/*:1",), (), B, False),  # seen under 2 as well
            (("quay.io/org/*:1",), (), C, False),  # never seen under a tag
            ((), ("docker.io/*",), "1", True),
            ((), ("quay.io/org/app:v*",), "1", True),
            ((), ("quay.io/org/app:v*",), "v1", False),
            ((), ("quay.io/org/app:v*",), C, False),
            ((), ("quay.io/org/app:v*",), None, False),
            (("*:1",), ("quay.io/*",), "1", True),
        ],
    )
    def test_denied(
        self, deny: tuple[str, ...], allow: tuple[str, ...], reference: Digest | str | None, denied: bool
    ) -> None:
        tags = {str(A): ("1",), str(B): ("1", "2")}
        found = reason(deny, allow, "quay.io", "org/app", reference, lambda *name: tags.get(name[2], ()))
        assert bool(found) is denied
