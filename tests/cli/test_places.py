from pathlib import Path

import pytest

from entrepot.cli.places import NoPlace, place, place_to_read, prepare, readable, user_state, writable
from entrepot.config import Certs, Config, Store, load
from entrepot.config.build import Loaded

NOWHERE = Path("/nonexistent/entrepot.toml")
STATE = Path("/var/lib/entrepot")


def defaults(**environ: str) -> Loaded:
    return load(None, environ, system_file=NOWHERE)


def never(_: Path) -> bool:
    return False


def always(_: Path) -> bool:
    return True


def test_what_is_usable_stays() -> None:
    placed = place(defaults(), {}, usable=always)
    assert placed.config == Config()
    assert placed.notes == ()


def test_without_the_right_to_var_it_is_in_the_home() -> None:
    placed = place(defaults(), {"HOME": "/home/u"}, usable=never)
    assert placed.config.store.path == Path("/home/u/.local/state/entrepot")
    assert placed.config.certs.path == Path("/home/u/.local/state/entrepot/ca")
    (note,) = placed.notes
    assert note == (
        "/var/lib/entrepot is not writable for this user: store.path = /home/u/.local/state/entrepot, "
        "certs.path = /home/u/.local/state/entrepot/ca"
    )


def test_the_state_home_wins_over_the_home() -> None:
    placed = place(defaults(), {"HOME": "/home/u", "XDG_STATE_HOME": "/state"}, usable=never)
    assert placed.config.store.path == Path("/state/entrepot")
    assert user_state({"HOME": "/home/u", "XDG_STATE_HOME": "relative"}) == Path("/home/u/.local/state/entrepot")


def test_a_path_somebody_has_set_is_never_replaced() -> None:
    placed = place(defaults(ENTREPOT_STORE_PATH="/srv/x"), {"HOME": "/home/u"}, usable=never)
    assert placed.config.store.path == Path("/srv/x")
    assert placed.config.certs.path == Path("/home/u/.local/state/entrepot/ca")


def test_no_home_at_all() -> None:
    with pytest.raises(NoPlace, match=r"set store\.path and certs\.path"):
        place(defaults(), {}, usable=never)


def test_commands_that_read_look_where_up_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "state/entrepot"
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    loaded = defaults()
    # The box that runs the tests may have a store of its own at the default place.
    monkeypatch.setattr("entrepot.cli.places.readable", lambda path: path != STATE and readable(path))
    assert place_to_read(loaded, environ).store.path == STATE
    here.mkdir(parents=True)
    assert place_to_read(loaded, environ).store.path == here
    assert place_to_read(loaded, {}).store.path == STATE
    assert place_to_read(defaults(ENTREPOT_STORE_PATH=str(tmp_path)), environ).store.path == tmp_path


def test_writable(tmp_path: Path) -> None:
    assert writable(tmp_path / "a/b/c")
    (tmp_path / "file").touch()
    assert not writable(tmp_path / "file")
    assert not writable(tmp_path / "file/below")
    assert not readable(tmp_path / "file")


def test_folders_are_made_and_kept_private(tmp_path: Path) -> None:
    config = Config(store=Store(path=tmp_path / "s"), certs=Certs(path=tmp_path / "c/ca"))
    prepare(config)
    prepare(config)
    assert (tmp_path / "c/ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "s").stat().st_mode & 0o007 == 0
    assert (tmp_path / "s/run").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoPlace, match=r"cannot make .*; set store\.path"):
        prepare(Config(store=Store(path=tmp_path / "file/s"), certs=Certs(path=tmp_path / "ca")))


def test_a_folder_of_somebody_else() -> None:
    with pytest.raises(NoPlace):
        prepare(Config(store=Store(path=Path("/proc/entrepot"))))  # not even root makes folders there
