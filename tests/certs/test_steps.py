import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from entrepot.certs import steps
from entrepot.certs.errors import TrustError
from entrepot.certs.steps import Link, Note, Remove, Run, Step, Write


class Recorder:
    """Runs nothing; remembers what it should have."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.commands: list[tuple[str, ...]] = []
        self._failure = failure

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(tuple(command))
        if self._failure is not None:
            raise self._failure


EACH: list[tuple[Step, str, dict[str, str]]] = [
    (Write(Path("/a/b"), b"x"), "write /a/b", {"action": "write", "path": "/a/b"}),
    (Link(Path("/a/b"), "c"), "link /a/b to c", {"action": "link", "path": "/a/b", "target": "c"}),
    (Remove(Path("/a/b")), "remove /a/b", {"action": "remove", "path": "/a/b"}),
    (Run(("x", "y"), "p"), "run x y", {"action": "run", "command": "x y"}),
    (Note("restart it"), "restart it", {"action": "note", "text": "restart it"}),
]


@pytest.mark.parametrize(("step", "line", "data"), EACH)
def test_each_step_is_shown(step: Step, line: str, data: dict[str, str]) -> None:
    assert steps.describe(step) == line
    assert steps.as_json(step) == data


def test_notes_change_nothing() -> None:
    assert not steps.changes([])
    assert not steps.changes([Note("x")])
    assert steps.changes([Note("x"), Remove(Path("/a"))])


def test_files_are_made_with_their_folders_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.crt"
    steps.apply([Write(path, b"one"), Write(path, b"two")], Recorder())
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [child.name for child in path.parent.iterdir()] == ["b.crt"]


def test_a_write_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to("theirs")
    steps.apply([Write(tmp_path / "link", b"ours")], Recorder())
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert (tmp_path / "link").read_bytes() == b"ours"


def test_links_are_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "link"
    steps.apply([Link(path, "one"), Link(path, "two")], Recorder())
    assert str(path.readlink()) == "two"


def test_removal_takes_the_folder_only_if_it_is_empty_and_asked(tmp_path: Path) -> None:
    for name in ("kept/x", "kept/y", "gone/x", "left/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    steps.apply(
        [
            Remove(tmp_path / "kept/x", prune=True),
            Remove(tmp_path / "gone/x", prune=True),
            Remove(tmp_path / "left/x"),
            Remove(tmp_path / "never/was", prune=True),
        ],
        Recorder(),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "left"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["y"]


def test_commands_go_to_the_runner_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    steps.apply([Write(tmp_path / "x", b""), Run(("one",), "p"), Note("n"), Run(("two", "x"), "p")], recorder)
    assert recorder.commands == [("one",), ("two", "x")]


def test_a_missing_command_names_the_package() -> None:
    recorder = Recorder(FileNotFoundError(2, "No such file or directory"))
    with pytest.raises(TrustError, match="cannot run update: there is no such command; install the package ca-certif"):
        steps.apply([Run(("update",), "ca-certificates")], recorder)


def test_refusals_of_the_disk_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrustError, match=r"cannot write .*/file/x: "):
        steps.apply([Write(tmp_path / "file/x", b"")], Recorder())
    with pytest.raises(TrustError, match="permission denied; run this as root"):
        steps.apply([Run(("x",), "p")], Recorder(PermissionError(13, "Permission denied")))


def test_a_file_of_a_command_that_is_gone_is_not_taken_for_the_command(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    with pytest.raises(TrustError, match=r"cannot link .*dangling/x to y: "):
        steps.apply([Link(tmp_path / "dangling" / "x", "y")], Recorder())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrustError, match="cannot write"):
        steps.apply([Write(tmp_path / "folder", b"x")], Recorder())
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_host_s_runner_says_what_a_failed_command_said() -> None:
    steps.run_command(["true"])
    with pytest.raises(TrustError, match=r"sh -c .* failed with status 3: first; second"):
        steps.run_command(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    with pytest.raises(TrustError, match="it said nothing"):
        steps.run_command(["false"])
