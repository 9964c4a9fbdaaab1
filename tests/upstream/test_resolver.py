"""Upstream names to addresses: both families, fail-over, memory, and never ourselves. Rule 11."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest
from tests.upstream.loopback import NOWHERE, Clock, Zone, name_server

from entrepot.upstream.errors import LoopDetected, Unreachable
from entrepot.upstream.resolver import MAX_NAMES, MAX_TTL, NEGATIVE_SECONDS, STALE_SECONDS, Resolver

OWN = ["192.0.2.1", "2001:db8::1", "127.0.0.1"]


class Setup:
    """A resolver with its clock."""

    def __init__(
        self,
        *zones: Zone | int,
        own: Collection[str] = OWN,
        own_ports: Collection[int] | None = None,
        hosts: Mapping[str, Sequence[str]] | None = None,
        seconds: float = 10.0,
    ) -> None:
        self.clock = Clock()
        ports = [zone if isinstance(zone, int) else zone.port for zone in zones]
        self.resolver = Resolver(
            [("127.0.0.1", port) for port in ports],
            lambda: own,
            clock=self.clock,
            hosts=hosts,
            own_ports=own_ports,
            query_seconds=seconds,
        )

    async def resolve(self, host: str, port: int | None = None) -> list[str]:
        return await self.resolver.resolve(host, port)


async def test_both_families_ipv6_first() -> None:
    async with name_server(a_test=["60 A 192.0.2.7", "60 AAAA 2001:db8::7", "60 A 192.0.2.8"]) as zone:
        assert await Setup(zone).resolve("a.test") == ["2001:db8::7", "192.0.2.7", "192.0.2.8"]
        assert sorted(zone.asked) == ["a.test A", "a.test AAAA"]


async def test_one_family_is_enough() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        assert await Setup(zone).resolve("a.test") == ["192.0.2.7"]


async def test_a_name_that_does_not_exist() -> None:
    async with name_server() as zone:
        with pytest.raises(Unreachable, match=r"a\.test: has no address"):
            await Setup(zone).resolve("a.test")


@pytest.mark.parametrize("host", ["x" * 64, "a..test", "b\u00fccher.test", ""])
async def test_what_cannot_be_a_name_is_not_asked_for(host: str) -> None:
    async with name_server() as zone:
        with pytest.raises(Unreachable):
            await Setup(zone).resolve(host)
        assert zone.asked == []


async def test_an_answer_is_kept_for_its_ttl() -> None:
    async with name_server(a_test=["60 CNAME b.test.", "30 A 192.0.2.7"], b_test=["30 A 192.0.2.7"]) as zone:
        setup = Setup(zone)
        await setup.resolve("A.test")
        setup.clock.now += 29
        await setup.resolve("a.test.")
        assert len(zone.asked) == 2
        setup.clock.now += 2
        await setup.resolve("a.test")
        assert len(zone.asked) == 4


@pytest.mark.parametrize(("ttl", "kept"), [(0, 0.9), (10_000_000, MAX_TTL - 1)])
async def test_a_ttl_has_bounds(ttl: int, kept: float) -> None:
    async with name_server(a_test=[f"{ttl} A 192.0.2.7", f"{ttl} AAAA 2001:db8::7"]) as zone:
        setup = Setup(zone)
        await setup.resolve("a.test")
        setup.clock.now += kept
        await setup.resolve("a.test")
        assert len(zone.asked) == 2
        setup.clock.now += 2
        await setup.resolve("a.test")
        assert len(zone.asked) == 4


async def test_a_mended_name_works_after_seconds() -> None:
    async with name_server() as zone:
        setup = Setup(zone)
        for _ in range(2):
            with pytest.raises(Unreachable):
                await setup.resolve("a.test")
        assert len(zone.asked) == 2
        zone.records["a.test"] = ["60 A 192.0.2.7"]
        setup.clock.now += NEGATIVE_SECONDS
        assert await setup.resolve("a.test") == ["192.0.2.7"]


async def test_waiters_share_one_question() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone)
        await asyncio.gather(*(setup.resolve("a.test") for _ in range(5)))
        assert len(zone.asked) == 2


async def test_a_waiter_that_leaves_takes_nobody_along() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        zone.hold = asyncio.Event()
        setup = Setup(zone)
        leaver, stayer = [asyncio.ensure_future(setup.resolve("a.test")) for _ in range(2)]
        await zone.was_asked.wait()
        leaver.cancel()
        zone.hold.set()
        assert await stayer == ["192.0.2.7"]
        assert leaver.cancelled()


@pytest.mark.parametrize("rcode", [2, 5])
async def test_a_server_that_refuses_is_passed_over(rcode: int) -> None:
    async with name_server() as bad, name_server(a_test=["60 A 192.0.2.7"], b_test=["60 A 192.0.2.8"]) as good:
        bad.rcode = rcode
        setup = Setup(bad, good)
        assert await setup.resolve("a.test") == ["192.0.2.7"]
        asked = len(bad.asked)
        assert await setup.resolve("b.test") == ["192.0.2.8"]
        assert len(bad.asked) == asked  # the good one is asked first from now on


async def test_a_dead_and_a_silent_server_are_passed_over() -> None:
    async with name_server() as silent, name_server(a_test=["60 A 192.0.2.7"]) as good:
        silent.silent = True
        assert await Setup(NOWHERE, silent, good, seconds=0.1).resolve("a.test") == ["192.0.2.7"]
        assert silent.asked


async def test_no_server_at_all() -> None:
    for setup in (Setup(), Setup(NOWHERE, NOWHERE)):
        with pytest.raises(Unreachable, match=r"a\.test: no name server answers"):
            await setup.resolve("a.test")


async def test_an_old_answer_serves_while_every_server_is_dead() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone)
        await setup.resolve("a.test")
        zone.rcode = 2
        setup.clock.now += STALE_SECONDS - 1
        assert await setup.resolve("a.test") == ["192.0.2.7"]
        asked = len(zone.asked)
        assert await setup.resolve("a.test") == ["192.0.2.7"]
        assert len(zone.asked) == asked  # and the dead are left alone for a while
        setup.clock.now += NEGATIVE_SECONDS
        with pytest.raises(Unreachable):
            await setup.resolve("a.test")  # more than a day old by now


async def test_the_old_answer_serves_while_servers_are_slow() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone)
        await setup.resolve("a.test")
        zone.hold = asyncio.Event()
        zone.records["a.test"] = ["60 A 192.0.2.8"]
        setup.clock.now += 61
        assert await setup.resolve("a.test") == ["192.0.2.7"]
        later = asyncio.ensure_future(setup.resolve("a.test"))  # waits for the question that is still out
        zone.hold.set()
        assert await later == ["192.0.2.8"]


async def test_a_name_that_is_gone_is_not_served_old() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone)
        await setup.resolve("a.test")
        del zone.records["a.test"]
        setup.clock.now += 61
        with pytest.raises(Unreachable, match="has no address"):
            await setup.resolve("a.test")


async def test_memory_is_bounded() -> None:
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone)

        async def fill(count: int) -> None:
            for number in range(count):
                with pytest.raises(Unreachable):
                    await setup.resolve(f"{'x' * 64}{number}.test")  # known not to exist without asking

        await setup.resolve("a.test")
        await fill(MAX_NAMES - 1)
        await setup.resolve("a.test")
        assert len(zone.asked) == 2
        await fill(MAX_NAMES)
        await setup.resolve("a.test")
        assert len(zone.asked) == 4


@pytest.mark.parametrize("record", ["A 192.0.2.1", "AAAA 2001:db8::1", "AAAA ::ffff:c000:201", "A 0.0.0.0", "AAAA ::"])
async def test_our_own_address_is_refused(record: str) -> None:
    async with name_server(a_test=[f"60 {record}"]) as zone:
        with pytest.raises(LoopDetected, match=r"a\.test: resolves to our own address"):
            await Setup(zone).resolve("a.test")


async def test_our_own_address_among_others_is_left_out() -> None:
    async with name_server(a_test=["60 A 192.0.2.1", "60 A 192.0.2.7"]) as zone:
        assert await Setup(zone).resolve("a.test") == ["192.0.2.7"]


async def test_what_is_our_own_may_change() -> None:
    own: list[str] = []
    async with name_server(a_test=["60 A 192.0.2.7"]) as zone:
        setup = Setup(zone, own=own)
        assert await setup.resolve("a.test") == ["192.0.2.7"]
        own.append("192.0.2.7")
        with pytest.raises(LoopDetected):
            await setup.resolve("a.test")


async def test_another_port_of_this_machine_is_no_loop_when_ports_are_given() -> None:
    async with name_server(a_test=["60 A 192.0.2.1"]) as zone:
        setup = Setup(zone, own_ports=[443])
        assert await setup.resolve("a.test", 5000) == ["192.0.2.1"]
        for port in (443, None):
            with pytest.raises(LoopDetected):
                await setup.resolve("a.test", port)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        ("2001:DB8::1", ["2001:db8::1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("Registry.LocalHost.", ["127.0.0.1", "::1"]),
        ("Fixed.test", ["192.0.2.1", "192.0.2.2"]),
    ],
)
async def test_what_is_said_outright_is_taken_as_said(host: str, addresses: list[str]) -> None:
    async with name_server() as zone:
        setup = Setup(zone, hosts={"fixed.test": ["192.0.2.1", "192.0.2.2"]})
        assert await setup.resolve(host, 443) == addresses
        assert zone.asked == []


def test_is_own() -> None:
    resolver = Setup(own=["192.0.2.1", "fe80::1%eth0"]).resolver
    assert resolver.is_own("192.0.2.1")
    assert resolver.is_own("::ffff:192.0.2.1")
    assert resolver.is_own("fe80::1")
    assert not resolver.is_own("192.0.2.2")
    assert not resolver.is_own("a.test")
