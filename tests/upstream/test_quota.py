"""What registries say of their quotas, and what is left to whom (DESIGN rule 6)."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest
from entrepot.registry.entries import HEAD_IS_FREE
from entrepot.registry.routes import BlobRoute, ManifestRoute, Ping
from entrepot.upstream.quota import (
    ASSUMED_PAUSE,
    MAX_PAUSE,
    TRUSTED,
    Budget,
    Quotas,
    counts,
    parse_budget,
    parse_retry_after,
)

NOW = 1_800_000_000.0
KEY = ("docker.io", "anonymous")
OTHER = ("docker.io", "0123abcd")


def fields(**values: str) -> Headers:
    return Headers((name.replace("_", "-"), value) for name, value in values.items())


def told(remaining: int, limit: int = 100, **more: str) -> Headers:
    return fields(RateLimit_Limit=f"{limit};w=21600", RateLimit_Remaining=f"{remaining};w=21600", **more)


@pytest.mark.parametrize(
    ("headers", "budget"),
    [
        (told(76), Budget(100, 76, 21600.0)),  # Docker Hub
        (fields(RateLimit_Limit="60", RateLimit_Remaining="59", RateLimit_Reset="30"), Budget(60, 59, None, 30.0)),
        (fields(X_RateLimit_Limit="60", X_RateLimit_Remaining="1"), Budget(60, 1)),
        (fields(RateLimit_Remaining="7"), Budget(None, 7)),
        (fields(RateLimit_Limit="10"), Budget(10)),
        (fields(RateLimit_Reset="10"), Budget()),
        (fields(RateLimit_Limit="10, 10;w=1, 1000;w=3600", RateLimit_Remaining="3"), Budget(10, 3, 1.0)),  # draft 06
        (fields(RateLimit_Remaining="3", RateLimit_Reset=f"{NOW + 90:.0f}"), Budget(None, 3, None, 90.0)),  # GitLab
        (fields(RateLimit_Remaining="3", RateLimit_Reset=f"{NOW - 90:.0f}"), Budget(None, 3, None, 0.0)),
        (fields(RateLimit_Remaining="3", RateLimit_Reset=f"{NOW * 1000:.0f}"), Budget(None, 3, None, MAX_PAUSE)),
        (fields(RateLimit="limit=100, remaining=50, reset=5"), Budget(100, 50, None, 5.0)),  # draft 07
        (
            fields(RateLimit="limit=100, remaining=50", RateLimit_Policy="100;w=10, 1000;w=3600"),
            Budget(100, 50, 10.0),
        ),
        (
            fields(RateLimit='"default";r=50;t=30', RateLimit_Policy='"default";q=100;w=60'),  # since draft 08
            Budget(100, 50, 60.0, 30.0),
        ),
        (
            fields(
                RateLimit='"burst";r=9;t=1, "da;i,ly";r=3;t=600',
                RateLimit_Policy='"burst";q=10;w=1;pk=:QUJD:,"da;i,ly";q=1000;w=86400',
            ),
            Budget(1000, 3, 86400.0, 600.0),
        ),
        (fields(RateLimit="remaining=2", RateLimit_Remaining="40", RateLimit_Limit="50"), Budget(None, 2)),
        (fields(RateLimit_Limit="many", RateLimit_Remaining="-1"), Budget()),
        (fields(RateLimit_Remaining="12.75"), Budget(None, 12)),
        (fields(RateLimit_Limit="9" * 16), Budget()),
        (Headers([("ratelimit-remaining", "x"), ("RateLimit-Remaining", "8")]), Budget(None, 8)),
        (fields(RateLimit='"unclosed;r=1, x'), Budget(None, 1)),  # taken loosely
        (Headers(), Budget()),
    ],
)
def test_fields(headers: Headers, budget: Budget) -> None:
    assert parse_budget(headers, NOW) == budget


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (formatdate(NOW + 90, localtime=False), 90.0),  # "-0000"
        ("999999999", MAX_PAUSE),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_PAUSE),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("Fri, 31 Feb 2026 25:61:61 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after(fields(Retry_After=value), NOW) == seconds


NAMES = st.sampled_from(
    [f"{prefix}RateLimit{kind}" for prefix in ("", "X-") for kind in ("", "-Policy", "-Limit", "-Remaining", "-Reset")]
    + ["Retry-After", "Docker-RateLimit-Source"]
)
VALUES = st.text(max_size=60) | st.text('"\\;,=rqtw 0123456789', max_size=60) | st.integers(0, 10**20).map(str)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.sampled_from([200, 401, 429, 503]))
def test_whatever_upstream_sends_is_taken(pairs: list[tuple[str, str]], status: int) -> None:
    headers = Headers(pairs)
    budget = parse_budget(headers, NOW)
    for number in (budget.limit, budget.remaining, budget.window, budget.reset):
        assert number is None or 0 <= number < 10**15
    for pause in (parse_retry_after(headers, NOW), budget.reset):
        assert pause is None or 0 <= pause <= MAX_PAUSE
    quotas = Quotas()
    quotas.observe(KEY, headers, status, NOW)
    assert quotas.may(KEY, "miss", NOW)
    assert all(type(number) is int for numbers in quotas.snapshot(NOW).values() for number in numbers.values())
    for purpose in ("revalidate", "prefetch"):  # nothing holds us back for longer than the longest pause
        assert quotas.may(KEY, purpose, NOW + MAX_PAUSE + 1)


@given(st.text(max_size=40))
def test_a_date_or_nothing(value: str) -> None:
    parse_retry_after(fields(Retry_After=value), NOW)


def test_a_long_field_of_quotes_costs_little() -> None:
    """Backtracking over unclosed quotes would take minutes."""
    for piece in ('"', '\\"', '";', '",', '"\\'):
        assert not parse_budget(fields(RateLimit=piece * 100_000), NOW)


@pytest.mark.parametrize(
    ("remaining", "revalidate", "prefetch"),
    [(100, True, True), (21, True, True), (20, True, False), (6, True, False), (5, False, False), (0, False, False)],
)
def test_who_may_spend_what_is_left(remaining: int, revalidate: bool, prefetch: bool) -> None:
    quotas = Quotas()
    quotas.observe(KEY, told(remaining), 200, NOW)
    assert quotas.may(KEY, "miss", NOW)
    assert quotas.may(KEY, "revalidate", NOW) is revalidate
    assert quotas.may(KEY, "prefetch", NOW) is prefetch
    # What does not count costs nothing, however little is left.
    assert quotas.may(KEY, "revalidate", NOW, counted=False)
    assert quotas.may(KEY, "prefetch", NOW, counted=False)


def test_nothing_known_holds_nothing_back() -> None:
    quotas = Quotas()
    assert quotas.may(KEY, "prefetch", NOW)
    quotas.observe(KEY, Headers(), 200, NOW)
    quotas.observe(KEY, Headers(), 503, NOW)  # an outage, not a quota
    assert quotas.may(KEY, "prefetch", NOW)
    assert quotas.snapshot(NOW) == {}
    assert len(quotas) == 0


def test_little_left_stands_until_there_is_more() -> None:
    quotas = Quotas()
    quotas.observe(KEY, fields(RateLimit_Remaining="0", RateLimit_Reset="40"), 200, NOW)
    assert not quotas.may(KEY, "revalidate", NOW + 39)
    assert quotas.may(KEY, "revalidate", NOW + 40)


def test_little_left_without_a_date_is_looked_at_again() -> None:
    """Docker Hub's window rolls for six hours and nothing says when there is more."""
    quotas = Quotas()
    quotas.observe(KEY, told(0), 200, NOW)
    assert not quotas.may(KEY, "revalidate", NOW + TRUSTED - 1)
    assert quotas.may(KEY, "revalidate", NOW + TRUSTED)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (fields(Retry_After="120"), 120.0),
        (fields(Retry_After=formatdate(NOW + 120, usegmt=True)), 120.0),
        (told(50, Retry_After="120"), 120.0),
        (told(50, RateLimit_Reset="7"), 7.0),
        (told(50, RateLimit_Reset="7", Retry_After="9"), 9.0),
        (told(50), ASSUMED_PAUSE),
        (Headers(), ASSUMED_PAUSE),
    ],
)
def test_a_429_stops_everything_but_misses_for_its_time(headers: Headers, seconds: float) -> None:
    quotas = Quotas()
    quotas.observe(KEY, headers, 429, NOW)
    for purpose in ("revalidate", "prefetch"):
        assert not quotas.may(KEY, purpose, NOW + seconds - 0.5)
        assert not quotas.may(KEY, purpose, NOW + seconds - 0.5, counted=False)
        assert quotas.may(KEY, purpose, NOW + seconds)
    assert quotas.may(KEY, "miss", NOW)


def test_a_later_answer_does_not_shorten_the_pause() -> None:
    quotas = Quotas()
    quotas.observe(KEY, told(0, Retry_After="120"), 429, NOW)
    quotas.observe(KEY, told(90), 200, NOW + 1)
    quotas.observe(KEY, told(0, Retry_After="5"), 429, NOW + 2)
    assert not quotas.may(KEY, "revalidate", NOW + 119)


def test_a_503_counts_when_it_says_how_long() -> None:
    quotas = Quotas()
    quotas.observe(KEY, fields(Retry_After="10"), 503, NOW)
    assert not quotas.may(KEY, "prefetch", NOW + 9)
    quotas.observe(OTHER, fields(Retry_After="10"), 200, NOW)
    assert quotas.may(OTHER, "prefetch", NOW + 10)


def test_credentials_have_budgets_of_their_own() -> None:
    quotas = Quotas()
    quotas.observe(KEY, told(0), 429, NOW)
    assert not quotas.may(KEY, "revalidate", NOW)
    assert quotas.may(OTHER, "revalidate", NOW)
    assert quotas.may(("quay.io", "anonymous"), "revalidate", NOW)


def test_a_429_that_names_nobody_is_meant_for_the_address() -> None:
    quotas = Quotas()
    quotas.observe(KEY, fields(Retry_After="30"), 429, NOW)
    assert not quotas.may(OTHER, "revalidate", NOW)
    assert quotas.may(("quay.io", "anonymous"), "revalidate", NOW)
    assert quotas.may(OTHER, "revalidate", NOW + 30)


def test_tokens_of_one_account_share_its_budget() -> None:
    """Docker Hub hands out a new token every few minutes, another for each repository."""
    quotas = Quotas()
    for number in range(3):
        quotas.observe(("docker.io", f"token {number}"), told(60, Docker_RateLimit_Source="192.0.2.7"), 200, NOW)
    quotas.observe(("docker.io", "token 0"), told(0, Docker_RateLimit_Source="192.0.2.7"), 429, NOW)
    assert not quotas.may(("docker.io", "token 2"), "prefetch", NOW)
    assert len(quotas) == 1
    quotas.observe(("docker.io", "token 3"), told(60, Docker_RateLimit_Source="an account"), 200, NOW)
    assert quotas.may(("docker.io", "token 3"), "prefetch", NOW)


def test_the_table_is_bounded() -> None:
    quotas = Quotas(max_known=10)
    for number in range(100):
        quotas.observe(("docker.io", str(number)), told(0, Docker_RateLimit_Source=f"s{number}"), 200, NOW)
        quotas.observe(("docker.io", "kept"), told(0, Docker_RateLimit_Source="kept"), 200, NOW)
    assert len(quotas) == len(quotas._owners) == 10
    assert not quotas.may(("docker.io", "kept"), "prefetch", NOW)
    assert quotas.may(("docker.io", "0"), "prefetch", NOW)


def test_what_is_shown() -> None:
    quotas = Quotas()
    quotas.observe(("docker.io", "a secret"), told(76, Docker_RateLimit_Source="192.0.2.7"), 200, NOW)
    quotas.observe(("quay.io", "anonymous"), fields(Retry_After="30"), 429, NOW)
    quotas.observe(("ghcr.io", "x"), fields(RateLimit_Remaining="5", RateLimit_Reset="60"), 200, NOW)
    shown = quotas.snapshot(NOW + 1)
    assert shown == {
        "docker.io": {"limit": 100, "remaining": 76, "seen": int(NOW)},
        "quay.io": {"paused": int(NOW) + 30},
        "ghcr.io": {"remaining": 5, "reset": int(NOW) + 60, "seen": int(NOW)},
    }
    assert "secret" not in str(shown)
    assert set(quotas.snapshot(NOW + 61)) == {"docker.io"}
    assert quotas.snapshot(NOW + 21600) == {}


def test_of_several_budgets_the_one_that_tells_most_is_shown() -> None:
    quotas = Quotas()
    quotas.observe(KEY, fields(RateLimit_Limit="10"), 200, NOW + 5)
    quotas.observe(OTHER, told(3), 200, NOW)
    assert quotas.snapshot(NOW + 5)["docker.io"] == {"limit": 100, "remaining": 3, "seen": int(NOW)}
    quotas.observe(KEY, told(8, 10), 200, NOW + 6)
    quotas.observe(OTHER, Headers(), 429, NOW + 7)  # by address: shown whatever else is
    shown = quotas.snapshot(NOW + 8)["docker.io"]
    assert shown == {"limit": 10, "remaining": 8, "seen": int(NOW) + 6, "paused": int(NOW + 7 + ASSUMED_PAUSE)}


def test_what_counts() -> None:
    hub = Registry("docker.io", (), (), "", quirks=frozenset({HEAD_IS_FREE}))
    manifest, blob = ManifestRoute("a", "1"), BlobRoute("a", Digest.of(b""))
    assert counts(hub, "GET", manifest)
    assert not counts(hub, "HEAD", manifest)
    assert not counts(hub, "GET", blob)
    assert not counts(hub, "GET", Ping())
    other = Registry("quay.io", (), (), "")
    assert all(counts(other, method, route) for method in ("GET", "HEAD") for route in (manifest, blob))


@pytest.mark.parametrize("headers", [fields(Retry_After="60"), told(0)], ids=["paused", "short"])
def test_what_was_said_under_a_clock_that_was_ahead_does_not_stand(headers: Headers) -> None:
    quotas = Quotas()
    status = 429 if headers.get("retry-after") else 200
    quotas.observe(KEY, headers, status, NOW)
    assert not quotas.may(KEY, "revalidate", NOW + 1)
    assert quotas.snapshot(NOW + 1)
    back = NOW - 86_400
    assert quotas.may(KEY, "revalidate", back)
    assert quotas.snapshot(back) == {}
    quotas.observe(KEY, headers, status, back)
    assert not quotas.may(KEY, "revalidate", back + 59)
    if status == 429:
        assert quotas.may(KEY, "revalidate", back + 61)
