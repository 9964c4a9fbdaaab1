"""Answers of upstreams, ageing and bounded."""

from entrepot.dns.cache import AnswerCache
from entrepot.dns.records import Answer
from entrepot.dns.wire import AA, RA, Reply


def answer(ttl: int, *, size: int = 0, life: int | None = None) -> Answer:
    """A body of nothing but one TTL, and padding."""
    body = ttl.to_bytes(4) + bytes(size)
    return Answer(Reply(AA | RA, 1, body=body), ((0, ttl),), ttl if life is None else life)


def ttl(cache: AnswerCache, key: bytes, now: float) -> int | None:
    found = cache.get(key, now)
    return int.from_bytes(found[0].body[:4]) if found else None


def test_a_ttl_counts_down_by_whole_seconds_until_it_is_gone() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(3), 100.5)
    times = (100.5, 101.4, 101.5, 102.6, 103.49, 103.5)
    assert [ttl(cache, b"k", now) for now in times] == [3, 3, 2, 1, 1, None]
    assert (len(cache), cache.used) == (0, 0)


def test_it_says_until_when_a_reply_is_true() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(3), 100.5)
    for now, until in ((100.5, 101.5), (102.0, 102.5)):
        found = cache.get(b"k", now)
        assert found is not None
        assert found[1] == until


def test_what_is_kept_is_not_authoritative() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(3), 0)
    found = cache.get(b"k", 0)
    assert found is not None
    assert found[0].flags == RA


def test_a_clock_that_goes_back_makes_nothing_older() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(3), 100)
    assert ttl(cache, b"k", 99) == 3


def test_what_may_not_be_kept_is_not_and_takes_the_old_answer_away() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(30), 0)
    cache.put(b"k", answer(30, life=0), 0)
    assert ttl(cache, b"k", 0) is None
    assert cache.used == 0


def test_a_newer_answer_takes_the_place_of_the_old() -> None:
    cache = AnswerCache()
    cache.put(b"k", answer(30), 0)
    used = cache.used
    cache.put(b"k", answer(60), 10)
    assert (ttl(cache, b"k", 10), len(cache), cache.used) == (60, 1, used)


def test_the_least_recently_used_goes_when_there_are_too_many() -> None:
    cache = AnswerCache(entries=2)
    cache.put(b"a", answer(30), 0)
    cache.put(b"b", answer(30), 0)
    assert ttl(cache, b"a", 1) == 29
    cache.put(b"c", answer(30), 1)
    assert [ttl(cache, key, 1) for key in (b"a", b"b", b"c")] == [29, None, 30]


def test_size_is_bounded_whatever_is_put_in() -> None:
    cache = AnswerCache(size=200_000)
    for number in range(50):
        cache.put(number.to_bytes(2), answer(30, size=30_000), 0)
        assert cache.used <= 200_000
    assert len(cache) == 3
    cache.put(b"too large", answer(30, size=200_000), 0)
    assert len(cache) == 3
