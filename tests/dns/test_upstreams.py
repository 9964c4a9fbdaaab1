"""Order, health and loops, by a clock of numbers."""

import socket

import pytest

from entrepot.dns.upstreams import Pool, make_upstream

THREE = (("10.0.0.1", 53), ("8.8.8.8", 53), ("8.8.4.4", 53))


def hosts(pool: Pool, now: float, *, private_only: bool = False) -> list[str]:
    return [upstream.host for upstream in pool.attempts(now, private_only=private_only)]


def test_the_callers_order_is_kept() -> None:
    assert hosts(Pool((*THREE, ("1.1.1.1", 53))), 0) == ["10.0.0.1", "8.8.8.8", "8.8.4.4"]


def test_too_few_are_asked_several_times() -> None:
    assert hosts(Pool(THREE[:1]), 0) == ["10.0.0.1"] * 3
    assert hosts(Pool(THREE[:2]), 0) == ["10.0.0.1", "8.8.8.8", "10.0.0.1"]
    assert hosts(Pool(()), 0) == []


def test_one_that_failed_goes_last_until_it_answers() -> None:
    pool = Pool(THREE)
    first = pool.all[0]
    pool.failed(first, 0)
    assert hosts(pool, 100) == ["8.8.8.8", "8.8.4.4", "10.0.0.1"]
    pool.worked(first)
    assert hosts(pool, 100) == ["10.0.0.1", "8.8.8.8", "8.8.4.4"]


def test_one_that_failed_is_tried_again_beside_others_less_and_less_often() -> None:
    pool = Pool(THREE)
    first, second, _ = pool.all
    assert pool.due(0, second) is None
    pool.failed(first, 0)
    assert pool.due(0.9, second) is None
    assert pool.due(1.0, second) is first
    assert pool.due(2.9, second) is None
    assert pool.due(3.0, second) is first
    for _ in range(20):
        now = first.retry_at
        assert pool.due(now, second) is first
    assert first.retry_at - now == 30


def test_one_that_is_asked_anyway_is_not_due() -> None:
    pool = Pool(THREE[:1])
    pool.failed(pool.all[0], 0)
    assert pool.due(100, pool.all[0]) is None


def test_questions_that_fail_together_are_one_failure() -> None:
    pool = Pool(THREE)
    for _ in range(100):
        pool.failed(pool.all[0], 0)
    assert (pool.all[0].failures, pool.all[0].retry_at) == (1, 1.0)


def test_private_upstreams_only() -> None:
    pool = Pool(THREE)
    assert pool.any_private
    assert hosts(pool, 0, private_only=True) == ["10.0.0.1"] * 3
    assert not Pool(THREE[1:]).any_private


def test_one_that_leads_back_to_us_is_left_alone_for_a_while() -> None:
    pool = Pool(THREE[:2])
    first, second = pool.all
    pool.failed(first, 0)
    pool.looping(first, 0)
    assert hosts(pool, 299) == ["8.8.8.8"] * 3
    assert pool.due(299, second) is None
    assert "10.0.0.1" in hosts(pool, 300)


def test_a_suspect_is_probed_once_a_minute() -> None:
    pool = Pool(THREE)
    assert [pool.may_probe(pool.all[0], now) for now in (0, 59, 60)] == [True, False, True]


@pytest.mark.parametrize(
    ("host", "family", "private", "text"),
    [
        ("10.0.0.1", socket.AF_INET, True, "10.0.0.1:53"),
        ("127.0.0.53", socket.AF_INET, True, "127.0.0.53:53"),
        ("9.9.9.9", socket.AF_INET, False, "9.9.9.9:53"),
        ("fe80::1%eth0", socket.AF_INET6, True, "[fe80::1%eth0]:53"),
        ("2001:db8::1", socket.AF_INET6, False, "[2001:db8::1]:53"),
    ],
)
def test_what_an_address_tells(host: str, family: int, private: bool, text: str) -> None:
    upstream = make_upstream(host, 53)
    assert (upstream.family, upstream.private, str(upstream)) == (family, private, text)


def test_a_zone_is_no_part_of_a_source_address() -> None:
    assert make_upstream("fe80::1%eth0", 53).bare_host == "fe80::1"
