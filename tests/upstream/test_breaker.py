"""The states of an origin (rule 5): what moves them, and what never does."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from entrepot.upstream.breaker import DISTRUST, SOFT_LIMIT, THROTTLED_LIMIT, Breaker, Finding, State

BAD = [Finding.SICK, Finding.THROTTLED, Finding.DEAD]


def suspect() -> Breaker:
    breaker = Breaker()
    breaker.hard(breaker.begin(), "cannot connect", 10.0)
    return breaker


def opened() -> Breaker:
    breaker = suspect()
    breaker.probed(Finding.DEAD, "no answer in time", 11.0)
    return breaker


def test_one_hard_failure_makes_it_suspect() -> None:
    breaker = suspect()
    assert (breaker.state, breaker.since, breaker.why) == (State.SUSPECT, 10.0, "cannot connect")
    assert breaker.doubtful
    assert not breaker.confirmed


def test_a_second_one_opens_it() -> None:
    breaker = suspect()
    breaker.hard(breaker.begin(), "cannot connect", 12.0)
    assert (breaker.state, breaker.since) == (State.OPEN, 10.0)
    assert not breaker.confirmed  # clients alone cannot bring that about


def test_many_that_fail_at_one_moment_are_one_failure() -> None:
    breaker = Breaker()
    begun = [breaker.begin() for _ in range(20)]
    for one in begun:
        breaker.hard(one, "reset", 10.0)
    assert breaker.state is State.SUSPECT


@pytest.mark.parametrize(
    ("finding", "state"),
    [(Finding.DEAD, State.OPEN), (Finding.SICK, State.SUSPECT), (Finding.THROTTLED, State.SUSPECT)],
)
def test_a_probe_that_fails_too_confirms_it(finding: Finding, state: State) -> None:
    """What answers is never open: asking it costs nobody any time."""
    breaker = suspect()
    breaker.probed(finding, "x", 11.0)
    assert (breaker.state, breaker.confirmed) == (state, True)


def test_soft_failures_make_it_suspect_only_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(5):
        for _ in range(SOFT_LIMIT - 1):
            breaker.soft("answers with 503", 10.0)
        breaker.success()
        assert breaker.state is State.CLOSED
    for number in range(1, 20):
        breaker.soft("answers with 503", 10.0)
        assert breaker.state is (State.CLOSED if number < SOFT_LIMIT else State.SUSPECT)


def test_throttling_has_it_looked_at_and_no_more() -> None:
    """A 429 is about one credential; a probe has none."""
    breaker = Breaker()
    for number in range(1, 20):
        breaker.throttled("throttles", 10.0)
        assert breaker.state is State.CLOSED
        assert breaker.doubtful is (number >= THROTTLED_LIMIT)
    breaker.probed(Finding.WELL, "", 10.0)
    assert not breaker.doubtful
    for _ in range(THROTTLED_LIMIT):
        breaker.throttled("throttles", 10.0)
    breaker.probed(Finding.THROTTLED, "throttles", 10.0)
    assert (breaker.state, breaker.confirmed) == (State.SUSPECT, True)


@pytest.mark.parametrize("make", [suspect, opened])
def test_an_answer_closes_it(make: Callable[[], Breaker]) -> None:
    breaker = make()
    breaker.success()
    assert (breaker.state, breaker.confirmed, breaker.doubtful) == (State.CLOSED, False, False)
    again = make()
    again.probed(Finding.WELL, "", 12.0)
    assert (again.state, again.confirmed, again.doubtful) == (State.CLOSED, False, False)


@pytest.mark.parametrize("kind", ["soft", "throttled"])
def test_what_answers_again_is_no_longer_open(kind: str) -> None:
    breaker = opened()
    getattr(breaker, kind)("answers", 12.0)
    assert breaker.state is State.SUSPECT


def test_a_client_that_waits_makes_it_suspect() -> None:
    breaker = Breaker()
    breaker.slow("does not answer in time", 10.0)
    assert (breaker.state, breaker.confirmed) == (State.SUSPECT, False)


class TestAPingThatWorks:
    """A registry that answers probes and nothing else."""

    def relapsed(self) -> Breaker:
        breaker = suspect()
        breaker.probed(Finding.WELL, "", 11.0)
        assert breaker.state is State.CLOSED
        breaker.slow("does not answer in time", 12.0)
        return breaker

    def test_it_is_not_believed_at_once(self) -> None:
        breaker = self.relapsed()
        states = []
        for now in (12.1, 12.0 + DISTRUST - 0.1, 12.0 + DISTRUST):
            breaker.probed(Finding.WELL, "", now)
            states.append(breaker.state)
        assert states == [State.SUSPECT, State.SUSPECT, State.CLOSED]

    def test_a_clients_answer_is(self) -> None:
        breaker = self.relapsed()
        breaker.success()
        assert breaker.state is State.CLOSED
        breaker.slow("does not answer in time", 13.0)
        breaker.probed(Finding.WELL, "", 13.1)
        assert breaker.state is State.CLOSED

    def test_it_is_not_open_however_often_it_hangs(self) -> None:
        breaker = self.relapsed()
        breaker.hard(breaker.begin(), "no answer in time", 12.5)
        breaker.hard(breaker.begin(), "no answer in time", 13.0)
        assert breaker.state is State.OPEN
        breaker.probed(Finding.WELL, "", 13.5)
        assert (breaker.state, breaker.confirmed) == (State.SUSPECT, False)


class Machine(RuleBasedStateMachine):
    """Any order of events; `self.happened` since it was last closed."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = Breaker(), 1000.0
        self.begun = [0]
        self.happened: list[str] = []
        self.before = (State.CLOSED, 0.0)

    @rule(seconds=st.floats(0.0, 30.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        self.begun.append(self.breaker.begin())

    @rule(data=st.data())
    def hard(self, data: st.DataObject) -> None:
        self.breaker.hard(data.draw(st.sampled_from(self.begun)), "hard", self.now)
        self.happened.append("hard")

    @rule()
    def soft(self) -> None:
        self.breaker.soft("soft", self.now)
        self.happened.append("soft")

    @rule()
    def throttled(self) -> None:
        self.breaker.throttled("throttled", self.now)
        self.happened.append("429")

    @rule()
    def slow(self) -> None:
        self.breaker.slow("slow", self.now)
        self.happened.append("slow")

    @rule()
    def success(self) -> None:
        self.breaker.success()
        assert self.breaker.state is State.CLOSED
        self.happened.clear()

    @rule(finding=st.sampled_from(Finding))
    def probed(self, finding: Finding) -> None:
        if not self.breaker.doubtful:
            return  # nobody asks then
        self.breaker.probed(finding, f"probe {finding}", self.now)
        self.happened.append(finding)
        if self.breaker.state is State.CLOSED:
            assert finding is Finding.WELL
            self.happened.clear()

    @invariant()
    def only_what_does_not_answer_is_open(self) -> None:
        if self.breaker.state is State.OPEN:
            assert {"hard", "dead"} & set(self.happened)
            assert self.happened[-1] not in {"soft", "429", "sick", "throttled", "well"}

    @invariant()
    def throttling_alone_changes_nothing(self) -> None:
        if set(self.happened) <= {"429"}:
            assert self.breaker.state is State.CLOSED

    @invariant()
    def a_few_soft_failures_change_nothing(self) -> None:
        if set(self.happened) <= {"soft", "429"} and self.happened.count("soft") < SOFT_LIMIT:
            assert self.breaker.state is State.CLOSED

    @invariant()
    def confirmed_is_what_the_last_probe_says(self) -> None:
        probes = [one for one in self.happened if one in list(Finding)]
        if self.breaker.state is not State.CLOSED:
            assert self.breaker.confirmed is bool(probes and probes[-1] in BAD)
        else:
            assert not self.breaker.confirmed

    @invariant()
    def what_is_down_is_looked_after_and_has_a_reason(self) -> None:
        if self.breaker.state is not State.CLOSED:
            assert self.breaker.doubtful
            assert self.breaker.why
            assert self.breaker.since <= self.now

    @invariant()
    def it_is_down_since_it_went_down(self) -> None:
        state, since = self.before
        if State.CLOSED not in {state, self.breaker.state}:
            assert self.breaker.since == since
        self.before = self.breaker.state, self.breaker.since


TestMachine = Machine.TestCase
