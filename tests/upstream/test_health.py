"""Down is a state (rule 5): seen once, known to all, looked after until it is over. Times pass only when told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.upstream.loopback import Clock

from entrepot.cache.interface import Document, StoreError
from entrepot.cache.memory import MemoryRecords
from entrepot.headers import Headers
from entrepot.tasks import spawn
from entrepot.upstream import places
from entrepot.upstream.breaker import SOFT_LIMIT, THROTTLED_LIMIT
from entrepot.upstream.errors import Down, InvalidResponse, LoopDetected, TimedOut, Unreachable, UpstreamError
from entrepot.upstream.health import IDLE_SECONDS, INTERVALS, PATIENCE, Health

URL = "https://quay.test"
BLOB = f"{URL}/v2/org/app/blobs/sha256:00?X-Amz-Signature=secret"
KEY = "down/https://quay.test"
NO = Headers()
REFUSED = Unreachable("quay.test", "cannot connect: connection refused")


async def settle() -> None:
    """Nothing is left to do but what waits for time or for the test."""
    for _ in range(50):
        await asyncio.sleep(0)


@dataclass
class Process:
    """One process of the box; its probes get `finds`, after `hold` if there is one."""

    records: MemoryRecords
    clock: Clock
    finds: int | UpstreamError = field(default=TimedOut("quay.test", "no answer in time"))
    hold: asyncio.Event | None = None
    probes: list[str] = field(default_factory=list)
    cas: list[tuple[Path, ...]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(self.records, self.probe, self.clock, self.wait)

    async def probe(self, url: str, ca: tuple[Path, ...]) -> int:
        self.probes.append(url)
        self.cas.append(ca)
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.finds, UpstreamError):
            raise self.finds
        return self.finds

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.pauses.append(seconds)
        self._over = asyncio.Event()
        waits = [spawn(one.wait(), name="wait") for one in (event, self._over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def pause_ends(self) -> None:
        """The time between two probes passes."""
        self.clock.now += self.pauses[-1]
        self._over.set()
        await settle()

    async def fails(self, error: UpstreamError = REFUSED, url: str = BLOB) -> None:
        self.health.begin(url, (), insist=False).failed(error)
        await settle()

    async def answers(self, status: int, *fields: tuple[str, str], url: str = BLOB, insist: bool = False) -> None:
        self.health.begin(url, (), insist=insist).answered(status, Headers(fields))
        await settle()

    async def goes_down(self) -> None:
        await self.fails()
        assert self.health.is_out(URL)

    def refuses(self, url: str = BLOB) -> bool:
        try:
            self.health.begin(url, (), insist=False)
        except Down:
            return True
        return False


type Make = Callable[[], Process]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes processes that share their records."""
    clock = Clock()
    records = MemoryRecords(clock)
    made: list[Process] = []

    def process() -> Process:
        made.append(Process(records, clock))
        return made[-1]

    yield process
    for one in made:
        await one.health.close()


@pytest.fixture
def one(make: Make) -> Process:
    return make()


class TestOneProcess:
    async def test_who_has_something_held_does_without_it_at_once(self, one: Process) -> None:
        one.hold = asyncio.Event()
        await one.fails()
        assert one.health.is_down(URL)
        assert not one.health.is_out(URL)  # a probe is still looking
        assert not one.refuses()
        assert one.probes == [f"{URL}/v2/"]

    async def test_when_a_probe_fails_too_nobody_asks_any_more(self, one: Process) -> None:
        await one.goes_down()
        with pytest.raises(Down) as caught:
            one.health.begin(BLOB, (), insist=False)
        assert str(caught.value) == "quay.test: not asked, it is down: no answer in time"

    async def test_a_transfer_that_clients_read_asks_all_the_same(self, one: Process) -> None:
        await one.goes_down()
        one.health.begin(BLOB, (), insist=True).answered(206, NO)
        assert not one.health.is_down(URL)

    @pytest.mark.parametrize("status", [200, 301, 401, 403, 404])
    async def test_any_answer_to_a_probe_ends_it(self, one: Process, status: int) -> None:
        await one.goes_down()
        one.finds = status
        await one.pause_ends()
        assert not one.health.is_down(URL)
        assert not one.refuses()
        assert one.records.get(KEY) is None
        probes = len(one.probes)
        await one.pause_ends()
        assert len(one.probes) == probes  # nobody looks any more

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_one_that_answers_but_is_sick_is_asked_by_whom_has_nothing(self, one: Process, status: int) -> None:
        one.finds = status
        await one.fails()
        assert one.health.is_out(URL)
        assert not one.refuses()

    async def test_probes_come_less_and_less_often(self, one: Process) -> None:
        await one.goes_down()
        for _ in range(6):
            await one.pause_ends()
        assert one.pauses == [*INTERVALS, *[INTERVALS[-1]] * 3]
        assert len(one.probes) == len(one.pauses)

    async def test_what_nobody_asks_for_is_forgotten(self, one: Process) -> None:
        await one.goes_down()
        started = one.clock.now
        while one.clock.now - started < IDLE_SECONDS:
            probes = len(one.probes)
            await one.pause_ends()
            assert len(one.probes) == probes + 1
        await one.pause_ends()
        assert len(one.probes) == probes + 1
        assert not one.refuses()  # a trial
        await one.fails()
        assert one.health.is_out(URL)
        assert one.records.get(KEY) is not None

    async def test_a_look_at_what_is_held_keeps_it_looked_after(self, one: Process) -> None:
        await one.goes_down()
        started = one.clock.now
        while one.clock.now - started < 2 * IDLE_SECONDS:
            assert one.health.is_down(URL)
            await one.pause_ends()
        assert one.refuses()

    async def test_a_private_registrys_ca_is_for_its_probe_too(self, one: Process) -> None:
        ca = (Path("ca.pem"),)
        one.health.begin(BLOB, ca, insist=False).failed(REFUSED)
        await settle()
        assert one.cas == [ca]

    async def test_origins_are_each_by_themselves(self, one: Process) -> None:
        """A CDN that is down is not the registry."""
        await one.fails(url="https://cdn.test/x")
        await one.fails(url="https://quay.test:8443/v2/")
        await one.fails(url="http://quay.test/v2/")
        assert not one.health.is_down(URL)
        assert not one.refuses()
        assert one.refuses("https://cdn.test:443/y?z")
        assert one.health.is_down("http://quay.test:80")
        assert one.probes == ["https://cdn.test/", "https://quay.test:8443/v2/", "http://quay.test/v2/"]

    async def test_5xx_in_a_row(self, one: Process) -> None:
        one.finds = 503
        for number in range(1, SOFT_LIMIT + 1):
            await one.answers(503)
            assert one.health.is_down(URL) is (number == SOFT_LIMIT)
        assert one.health.is_out(URL)
        await one.answers(404)
        assert not one.health.is_down(URL)

    @pytest.mark.parametrize("status", [501, 505, 404, 401])
    async def test_what_says_nothing_about_the_server(self, one: Process, status: int) -> None:
        for _ in range(10):
            await one.answers(status)
        assert not one.health.is_down(URL)
        assert one.probes == []

    async def test_429_of_one_credential_does_not_make_it_down_for_others(self, one: Process) -> None:
        one.finds = 401
        for _ in range(THROTTLED_LIMIT):
            await one.answers(429)
            assert not one.health.is_down(URL)
        assert len(one.probes) == 1
        one.finds = 429  # now nobody has an answer
        for _ in range(THROTTLED_LIMIT):
            await one.answers(429)
        assert one.health.is_down(URL)
        assert not one.refuses()

    async def test_retry_after_is_heeded_by_probes(self, one: Process) -> None:
        one.finds = 503
        for _ in range(SOFT_LIMIT):
            await one.answers(503, ("Retry-After", "20"))
        assert one.pauses == [INTERVALS[-1]]
        await one.pause_ends()
        await one.pause_ends()
        assert one.pauses[2] < INTERVALS[-1]

    async def test_errors_that_are_not_the_other_sides(self, one: Process) -> None:
        for _ in range(5):
            await one.fails(LoopDetected("quay.test", "our own address"))
        assert not one.health.is_down(URL)
        one.finds = 503
        for number in range(1, SOFT_LIMIT + 1):
            await one.fails(InvalidResponse("quay.test", "sent no valid http answer"))
            assert one.health.is_down(URL) is (number == SOFT_LIMIT)

    async def test_who_leaves_after_waiting_long_tells_something(self, one: Process) -> None:
        one.hold = asyncio.Event()
        early, late = (one.health.begin(BLOB, (), insist=False) for _ in range(2))
        early.dropped()
        assert not one.health.is_down(URL)
        one.clock.now += PATIENCE
        late.dropped()
        assert one.health.is_down(URL)
        await settle()
        assert len(one.probes) == 1

    async def test_a_slow_one_that_answers_a_probe_is_well(self, one: Process) -> None:
        one.finds, one.hold = 401, asyncio.Event()
        one.health.slow(URL)
        assert one.health.is_down(URL)
        one.hold.set()
        await settle()
        assert not one.health.is_down(URL)

    async def test_names_that_are_made_up_fill_nothing(self, one: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(places, "MOST", 10)
        for number in range(30):
            await one.fails(url=f"https://made-up-{number}.test/")
        assert len(one.health._places._known) == 10
        running = [task for task in asyncio.all_tasks() if task.get_name().startswith("probes of")]
        assert len(running) == 10

    async def test_it_is_logged_once(self, one: Process, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "entrepot.upstream")
        await one.goes_down()
        one.clock.now += 58.0
        await one.pause_ends()
        one.finds = 401
        await one.pause_ends()
        assert [record.message for record in caplog.records] == [
            "upstream is down origin=https://quay.test why='no answer in time'",
            "upstream is back origin=https://quay.test after=64s",
        ]
        assert "secret" not in caplog.text

    async def test_its_end_is_the_end_of_the_probes(self, one: Process) -> None:
        await one.goes_down()
        await one.health.close()
        await one.fails(url="https://cdn.test/x")  # of an exchange that has outlived it
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probes of")]


class Full(MemoryRecords):
    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        raise StoreError("disk full")

    async def delete(self, key: str) -> bool:
        raise StoreError("disk full")


class Silent(MemoryRecords):
    """As `Full`, and says nothing of it."""

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        pass


@pytest.mark.parametrize("records", [Full, Silent])
async def test_a_full_disk_changes_nothing_for_this_process(records: type[MemoryRecords]) -> None:
    clock = Clock()
    one = Process(records(clock), clock)
    await one.goes_down()
    for _ in range(3):
        assert one.refuses()
        assert one.health.is_out(URL)
        await one.pause_ends()
    one.finds = 401
    await one.pause_ends()
    assert not one.health.is_down(URL)
    await one.health.close()


class TestSeveralProcesses:
    async def test_the_others_know_without_a_failure_of_their_own(self, make: Make) -> None:
        finder, other = make(), make()
        await finder.goes_down()
        assert other.health.is_down(URL)
        assert other.health.is_out(URL)
        assert other.refuses()

    async def test_also_when_they_have_just_looked(self, make: Make) -> None:
        finder, other = make(), make()
        assert not other.health.is_down(URL)
        await finder.goes_down()
        assert other.refuses()

    async def test_they_know_of_a_suspicion_too(self, make: Make) -> None:
        finder, other = make(), make()
        finder.hold = asyncio.Event()
        await finder.fails()
        assert other.health.is_down(URL)
        assert not other.health.is_out(URL)
        assert not other.refuses()
        await other.answers(200)
        assert not finder.refuses()
        assert not finder.health.is_down(URL)

    @pytest.mark.parametrize("status", [429, 503])
    async def test_an_answer_that_says_nothing_good_ends_it_for_nobody(self, make: Make, status: int) -> None:
        finder, other, third = make(), make(), make()
        attempt = other.health.begin(BLOB, (), insist=False)  # while all seems well
        await finder.goes_down()
        finder.clock.now += places.MEMO_SECONDS
        assert other.health.is_down(URL)  # it has been told, and has found nothing itself
        attempt.answered(status, NO)
        await settle()
        assert finder.refuses()
        assert third.refuses()

    async def test_one_of_them_probes(self, make: Make) -> None:
        finder, other = make(), make()
        await finder.goes_down()
        assert other.refuses()
        await settle()
        assert other.probes == []
        for _ in range(5):
            await finder.pause_ends()
            other._over.set()
            await settle()
        assert other.probes == []
        assert other.refuses()

    async def test_another_takes_over_from_one_that_is_gone(self, make: Make) -> None:
        finder, other = make(), make()
        await finder.goes_down()
        assert other.refuses()
        await settle()
        await finder.health.close()
        other.finds = 401
        await other.pause_ends()
        assert len(other.probes) == 1
        assert not other.refuses()

    async def test_an_answer_to_one_is_known_to_all(self, make: Make) -> None:
        finder, other, third = make(), make(), make()
        await finder.goes_down()
        assert other.refuses()
        assert third.refuses()
        await settle()
        finder.finds = 401
        await finder.pause_ends()
        for process in (finder, other, third):
            assert not process.refuses()
            assert not process.health.is_down(URL)
            assert not process.health.is_out(URL)

    async def test_a_probe_from_before_an_answer_does_not_bring_it_back(self, make: Make) -> None:
        finder, other = make(), make()
        await finder.goes_down()
        finder.hold = asyncio.Event()
        await finder.pause_ends()  # it looks, and has no answer yet
        await other.answers(200, insist=True)
        finder.hold.set()
        await settle()
        assert not finder.health.is_down(URL)
        assert not other.refuses()
        assert other.records.get(KEY) is None

    async def test_a_note_of_a_process_that_is_gone_ends(self, make: Make) -> None:
        finder, other = make(), make()
        await finder.goes_down()
        await finder.health.close()
        assert other.health.is_down(URL)
        other.clock.now += 31.0
        assert not other.health.is_down(URL)
        assert not other.refuses()

    async def test_a_note_that_has_ended_on_its_own_says_nothing(self, make: Make) -> None:
        """A process that was stopped for a while goes on where it was."""
        one, other = make(), make()
        await one.goes_down()
        one.clock.now += 100.0
        assert one.health.is_down(URL)
        assert one.refuses()
        await one.pause_ends()
        assert other.refuses()

    async def test_the_records_are_not_asked_for_every_request(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finder, other = make(), make()
        reads: list[str] = []
        get = other.records.get

        def counted(key: str) -> Document | None:
            reads.append(key)
            return get(key)

        monkeypatch.setattr(other.records, "get", counted)
        for _ in range(1000):
            assert not other.health.is_down(URL)
        assert len(reads) == 1
        await finder.goes_down()
        other.clock.now += places.MEMO_SECONDS
        assert other.health.is_down(URL)

    async def test_no_secret_is_noted(self, make: Make) -> None:
        one = make()
        await one.goes_down()
        note = one.records.get(KEY)
        assert note is not None
        assert note["why"] == "no answer in time"
        assert note["since"] == 1000.0
        assert "secret" not in str(note)
