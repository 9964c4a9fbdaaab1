import stat
import threading
from pathlib import Path

import pytest

from entrepot.certs import files
from entrepot.certs.errors import AuthorityError


def add(directory: Path, name: str) -> None:
    files.add_generation(directory, name, b"root", b"issuers", b"key")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_rule_12_only_the_owner_can_read(directory: Path) -> None:
    with files.locked(directory):
        add(directory, "one")
    assert mode(directory) == 0o700
    assert mode(directory / "one") == 0o700
    assert {path.name: mode(path) for path in (directory / "one").iterdir()} == {
        "ca.crt": 0o600,
        "issuers.crt": 0o600,
        "issuers.key": 0o600,
    }


def test_a_directory_that_was_open_is_closed(directory: Path) -> None:
    directory.mkdir(mode=0o755, parents=True)
    with files.locked(directory):
        pass
    assert mode(directory) == 0o700


def test_a_folder_of_others_keeps_its_mode(directory: Path) -> None:
    (directory / "passwd").parent.mkdir(mode=0o755, parents=True)
    (directory / "passwd").write_text("")
    with files.locked(directory):
        add(directory, "0badcafe")
    assert mode(directory) == 0o755
    assert mode(directory / "0badcafe") == 0o700, "what is in it is closed all the same"


def test_a_generation_is_never_overwritten(directory: Path) -> None:
    with pytest.raises(AuthorityError, match="exists"), files.locked(directory):
        add(directory, "one")
        add(directory, "one")


def test_a_role_is_given_replaced_and_moved(directory: Path) -> None:
    with files.locked(directory):
        assert files.generation(directory, "current") is None
        files.point(directory, "current", "one")
        files.point(directory, "current", "two")
        files.point(directory, "next", "three")
        assert [files.generation(directory, role) for role in files.ROLES] == ["two", "three", None]
        files.promote(directory)
        assert [files.generation(directory, role) for role in files.ROLES] == ["three", None, None]


def test_a_link_left_by_a_crash_is_no_obstacle(directory: Path) -> None:
    with files.locked(directory):
        (directory / ".current").symlink_to("nowhere")
        files.point(directory, "current", "one")
        assert files.generation(directory, "current") == "one"


def test_a_role_that_is_no_link_is_said(directory: Path) -> None:
    (directory / "current").mkdir(parents=True)
    with pytest.raises(AuthorityError, match="is no link to a CA"):
        files.generation(directory, "current")


def test_sweep_keeps_what_has_a_role_and_the_key_of_what_signs(directory: Path) -> None:
    with files.locked(directory):
        for name in ("00000001", "00000002", "00000003", "0badcafe", "not-ours"):
            add(directory, name)
        files.point(directory, "previous", "00000001")
        files.point(directory, "current", "00000002")
        files.point(directory, "next", "00000003")
        files.sweep(directory)
    keys = {path.parent.name for path in directory.glob(f"*/{files.KEY}") if not path.parent.is_symlink()}
    assert keys == {"00000002", "00000003", "not-ours"}
    assert (directory / "00000001" / files.ROOT).exists()
    assert not (directory / "0badcafe").exists()


def test_sweep_spares_the_key_when_a_crash_left_one_generation_in_two_roles(directory: Path) -> None:
    with files.locked(directory):
        add(directory, "00000001")
        files.point(directory, "current", "00000001")
        files.point(directory, "previous", "00000001")
        files.sweep(directory)
    assert (directory / "00000001" / files.KEY).exists()


def test_the_lock_keeps_others_out(directory: Path) -> None:
    entered, events = threading.Event(), []

    def second() -> None:
        entered.set()
        with files.locked(directory):
            events.append("second")

    thread = threading.Thread(target=second)
    with files.locked(directory):
        thread.start()
        entered.wait(10)
        thread.join(0.05)
        events.append("first")
    thread.join(10)
    assert events == ["first", "second"]


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o660, 0o644])
def test_rule_12_a_key_that_others_can_read_is_refused(tmp_path: Path, open_mode: int) -> None:
    path = tmp_path / "issuers.key"
    path.write_bytes(b"key")
    path.chmod(open_mode)
    with pytest.raises(AuthorityError, match=rf"can be read by others than its owner \(mode {open_mode:04o}\)"):
        files.read_key(path)
    path.chmod(0o600)
    assert files.read_key(path) == b"key"


def test_the_disk_s_refusals_are_ours(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="No such file"):
        files.read(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AuthorityError, match="file"), files.locked(tmp_path / "file"):
        pytest.fail("a file cannot be a CA directory")
