"""The count of connections that bring blobs."""

from entrepot.upstream.lanes import MEMORY_WINDOWS, Lanes


def test_a_first_connection_is_always_granted_and_counted() -> None:
    lanes = Lanes(2)
    for _ in range(5):
        lanes.take("quay.io")
    assert not lanes.spare("quay.io")
    assert lanes.spare("ghcr.io")
    for _ in range(4):
        lanes.give("quay.io")
    assert lanes.spare("quay.io")


def test_windows_stop_at_the_limit_of_the_registry() -> None:
    lanes = Lanes(3)
    lanes.take("quay.io")
    assert [lanes.take_window("quay.io", needed=False) for _ in range(3)] == [True, True, False]
    lanes.give_window("quay.io")
    assert lanes.take_window("quay.io", needed=False)


def test_memory_bounds_the_windows_of_all_registries() -> None:
    lanes = Lanes(100)
    granted = [lanes.take_window(f"r{n}.example", needed=False) for n in range(MEMORY_WINDOWS + 2)]
    assert granted.count(True) == MEMORY_WINDOWS
    assert not lanes.spare("fresh.example")


def test_what_a_transfer_cannot_do_without_is_granted() -> None:
    lanes = Lanes(1)
    lanes.take("quay.io")
    assert not lanes.take_window("quay.io", needed=False)
    assert lanes.take_window("quay.io", needed=True)
