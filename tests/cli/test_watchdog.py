"""Who hangs, on a clock that the test moves."""

from dataclasses import dataclass

import pytest

from entrepot.cli.watchdog import PATIENCE, Watchdog


@dataclass(eq=False)
class Child:
    ready: bool = True
    beats: int = 0
    in_disk: bool = False

    def waits_for_disk(self) -> bool:
        return self.in_disk


class Machine:
    """A supervisor that looks when it is time to, or later."""

    def __init__(self, *children: Child) -> None:
        self.now = 1000.0
        self.children = children
        self.dog = Watchdog[Child](lambda: self.now)

    def look(self, late: float = 0.0) -> list[Child]:
        self.now = self.dog.due + late
        return self.dog.look(self.children)

    def looks(self, number: int, late: float = 0.0) -> list[Child]:
        found: list[Child] = []
        for _ in range(number):
            assert not found
            found = self.look(late)
        return found


@pytest.fixture
def child() -> Child:
    return Child()


@pytest.fixture
def machine(child: Child) -> Machine:
    return Machine(child)


def test_who_is_silent_for_so_many_looks_hangs(machine: Machine, child: Child) -> None:
    child.beats = 5
    assert machine.looks(PATIENCE + 1) == [child]  # with the first it is met
    assert machine.now - 1000.0 == PATIENCE + 1


def test_silent_from_the_first_moment_on(machine: Machine, child: Child) -> None:
    assert machine.looks(PATIENCE + 1) == [child]


def test_a_word_now_and_then_will_do(machine: Machine, child: Child) -> None:
    for _ in range(5):
        assert machine.looks(PATIENCE) == []
        child.beats += 1


def test_only_the_one_that_hangs(child: Child) -> None:
    other = Child()
    machine = Machine(other, child)
    for _ in range(PATIENCE):
        other.beats += 1
        assert machine.look() == []
    other.beats += 1
    assert machine.look() == [child]


def test_nobody_looks_too_early(machine: Machine, child: Child) -> None:
    machine.looks(PATIENCE)
    machine.now = machine.dog.due - 0.01
    assert machine.dog.look([child]) == []
    assert machine.look() == [child]


def test_a_machine_that_slept_counts_nothing(machine: Machine, child: Child) -> None:
    """However long: one look is late, and that is all."""
    machine.looks(PATIENCE)
    assert machine.look(late=8 * 3600.0) == []
    child.beats += 1  # it woke up too
    assert machine.looks(PATIENCE) == []


def test_a_machine_on_which_we_wait_too_counts_nothing(machine: Machine, child: Child) -> None:
    assert machine.looks(20 * PATIENCE, late=0.6) == []
    assert machine.looks(PATIENCE) == [child]  # it is quiet again, and there is still no word


def test_who_waits_for_the_disk_does_not_hang(machine: Machine, child: Child) -> None:
    child.in_disk = True
    assert machine.looks(20 * PATIENCE) == []
    child.in_disk = False
    assert machine.looks(PATIENCE) == [child]


def test_who_starts_is_left_alone(machine: Machine, child: Child) -> None:
    child.ready = False
    assert machine.looks(20 * PATIENCE) == []
    child.ready = True
    assert machine.looks(PATIENCE + 1) == [child]


def test_the_next_one_begins_anew(machine: Machine) -> None:
    machine.looks(PATIENCE)
    machine.children = (Child(),)
    assert machine.looks(PATIENCE) == []
