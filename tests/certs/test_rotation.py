from collections.abc import Callable
from pathlib import Path

import pytest
from tests.certs.forge import NOW, SUBTREES, certificates

from entrepot.certs import files, rotation
from entrepot.certs.authority import Authority, new_generation
from entrepot.certs.errors import AuthorityError, AuthorityExists, InvalidSubtree, NoAuthority

WIDER = (*SUBTREES, "ghcr.io")


def test_rule_12_old_and_new_are_published_together(authority: Authority) -> None:
    begun = rotation.begin(authority.directory, WIDER, now=NOW)
    assert begun.next is not None
    assert begun.trusted == (authority.certificate, begun.next)
    assert certificates(begun.pem) == [authority.certificate, begun.next]
    assert rotation.published(authority.directory) == begun


def test_rule_12_leaves_are_signed_by_the_old_one_until_the_end(authority: Authority) -> None:
    begun = rotation.begin(authority.directory, WIDER, now=NOW)
    assert Authority.load(authority.directory).certificate == authority.certificate
    finished = rotation.finish(authority.directory)
    after = Authority.load(authority.directory)
    assert after.certificate == begun.next == finished.current
    assert after.permits("ghcr.io")
    assert finished.trusted == (begun.next,)
    assert finished.previous == authority.certificate


def test_the_key_of_the_old_one_is_deleted(authority: Authority) -> None:
    directory = authority.directory
    old = directory / (directory / "current").readlink()
    rotation.begin(directory, WIDER, now=NOW)
    assert (old / files.KEY).exists()
    rotation.finish(directory)
    assert not (old / files.KEY).exists()
    assert (directory / "previous" / files.ROOT).read_bytes() == authority.pem


def test_before_any_rotation_there_is_one(authority: Authority) -> None:
    assert rotation.published(authority.directory) == rotation.Published(authority.certificate, None, None)


def test_the_certificates_are_read_without_the_key(authority: Authority) -> None:
    for key in authority.directory.rglob(files.KEY):
        key.unlink()
    assert rotation.published(authority.directory).pem == authority.pem


def test_a_second_rotation_forgets_the_first(authority: Authority) -> None:
    directory = authority.directory
    rotation.begin(directory, WIDER, now=NOW)
    second = rotation.finish(directory).current
    rotation.begin(directory, WIDER, now=NOW)
    assert rotation.finish(directory).previous == second
    assert len([path for path in directory.iterdir() if not path.is_symlink()]) == 2


def test_one_at_a_time(authority: Authority) -> None:
    begun = rotation.begin(authority.directory, WIDER, now=NOW)
    with pytest.raises(AuthorityExists, match="--finish"):
        rotation.begin(authority.directory, WIDER, now=NOW)
    assert rotation.published(authority.directory) == begun


def test_cancel_forgets_the_new_one(authority: Authority) -> None:
    before = rotation.published(authority.directory)
    rotation.begin(authority.directory, WIDER, now=NOW)
    assert rotation.cancel(authority.directory) == before
    assert len(list(authority.directory.rglob(files.KEY))) == 1
    assert rotation.begin(authority.directory, WIDER, now=NOW).next is not None


@pytest.mark.parametrize("end", [rotation.finish, rotation.cancel])
def test_there_must_be_something_to_end(authority: Authority, end: Callable[[Path], rotation.Published]) -> None:
    with pytest.raises(AuthorityError, match="no rotation is under way"):
        end(authority.directory)
    assert Authority.load(authority.directory).certificate == authority.certificate


def test_without_a_ca_nothing_is_made(directory: Path) -> None:
    for step in (rotation.published, rotation.finish, rotation.cancel):
        with pytest.raises(NoAuthority):
            step(directory)
    with pytest.raises(NoAuthority):
        rotation.begin(directory, WIDER, now=NOW)
    assert not directory.exists()


def test_a_rotation_to_nothing_is_refused(authority: Authority) -> None:
    with pytest.raises(InvalidSubtree):
        rotation.begin(authority.directory, ["box"], now=NOW)


def test_a_crash_in_the_middle_of_finish_is_made_good(authority: Authority) -> None:
    """After "previous" is written and before "next" is current."""
    directory = authority.directory
    begun = rotation.begin(directory, WIDER, now=NOW)
    current = files.generation(directory, "current")
    assert current is not None
    with files.locked(directory):
        files.point(directory, "previous", current)
    assert rotation.published(directory) == begun, "nobody sees a difference"
    assert rotation.finish(directory) == rotation.Published(begun.trusted[1], None, authority.certificate)


def test_a_crash_at_the_end_of_finish_is_made_good(authority: Authority) -> None:
    """After "next" is current and before the old key is deleted."""
    directory = authority.directory
    rotation.begin(directory, WIDER, now=NOW)
    current = files.generation(directory, "current")
    assert current is not None
    with files.locked(directory):
        files.point(directory, "previous", current)
        files.promote(directory)
    assert Authority.load(directory).permits("ghcr.io")
    rotation.begin(directory, WIDER, now=NOW)
    rotation.cancel(directory)
    assert not (directory / current / files.KEY).exists()


def test_a_generation_without_a_role_is_swept(authority: Authority) -> None:
    directory = authority.directory
    with files.locked(directory):
        stray = new_generation(directory, SUBTREES, NOW, 1)
    rotation.begin(directory, WIDER, now=NOW)
    rotation.cancel(directory)
    assert not (directory / stray).exists()


def test_load_starts_over_when_a_rotation_ends_meanwhile(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader has seen the old generation; its key is gone when it gets there."""
    directory = authority.directory
    begun = rotation.begin(directory, WIDER, now=NOW)
    read_key = files.read_key

    def finish_first(path: Path) -> bytes:
        monkeypatch.setattr(files, "read_key", read_key)
        rotation.finish(directory)
        return read_key(path)

    monkeypatch.setattr(files, "read_key", finish_first)
    assert Authority.load(directory).certificate == begun.next
