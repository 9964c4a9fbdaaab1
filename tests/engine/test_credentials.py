"""The box's own credentials: where they are found, how long they are kept, and what is said when there are none."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine.test_engine import Clock
from tests.engine.test_helpers import install
from tests.engine.test_secretfiles import auth, config, written

from entrepot.engine.claims import Claim
from entrepot.engine.credentials import FRESH, SHUNNED, Credentials, Unusable, complaint, read
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.credentials import Credentials as Place
from entrepot.registry.credentials import DockerConfig, Helper, PasswordFile

__all__ = ["install"]  # a fixture
type Install = Callable[[str, str], Path]
ONE = Claim("user", "hunter2")


def registry(place: Place | None, name: str = "quay.io") -> Registry:
    found = Catalogue.builtin().with_overrides([RegistryOverride(name, credentials=place)]).registry(name)
    assert found is not None
    return found


class Reader:
    """Stands for the places."""

    def __init__(self, says: Claim | Unusable | None = ONE) -> None:
        self.says, self.asked = says, 0

    def __call__(self, registry: Registry) -> Claim | None:
        self.asked += 1
        if isinstance(self.says, Unusable):
            raise self.says
        return self.says


KNOWN = registry(Helper("here"))


class TestPlaces:
    def test_none(self) -> None:
        assert read(registry(None)) is None
        assert complaint(registry(None)) is None

    def test_a_password_file(self, tmp_path: Path) -> None:
        place = registry(PasswordFile("puller", written(tmp_path / "p", "word\n")))
        assert read(place) == Claim("puller", "word")
        assert complaint(place) is None
        (tmp_path / "p").chmod(0o644)
        assert (complaint(place) or "").startswith(f"{tmp_path}/p: other users can read")

    def test_a_docker_config(self, tmp_path: Path) -> None:
        path = config(tmp_path, auths={"https://index.docker.io/v1/": auth("u:p")})
        assert read(registry(DockerConfig(path), "docker.io")) == Claim("u", "p")
        assert complaint(registry(DockerConfig(path), "docker.io")) is None
        assert complaint(registry(DockerConfig(path))) == f"{path}: has nothing for quay.io"
        with pytest.raises(Unusable, match="has nothing for quay.io"):
            read(registry(DockerConfig(path)))

    def test_a_registry_of_a_family(self, tmp_path: Path) -> None:
        path = config(tmp_path, auths={"acme.azurecr.io": auth("u:p")})
        made = Catalogue.builtin().with_overrides([RegistryOverride("*.azurecr.io", credentials=DockerConfig(path))])
        acme, other = made.registry("acme.azurecr.io"), made.registry("other.azurecr.io")
        assert acme is not None
        assert other is not None
        assert read(acme) == Claim("u", "p")
        with pytest.raises(Unusable):
            read(other)

    def test_a_helper(self, install: Install) -> None:
        install("here", """cat > asked; echo '{"Username":"u","Secret":"s"}'""")
        assert read(registry(Helper("here"), "docker.io")) == Claim("u", "s")
        assert complaint(registry(Helper("here"))) is None
        assert complaint(registry(Helper("nowhere"))) == "there is no program docker-credential-nowhere on the PATH"

    def test_helpers_know_docker_hub_by_another_name(self, install: Install, tmp_path: Path) -> None:
        install("here", """read server; echo $server >> asked; exit 1""")
        with pytest.raises(Unusable):
            read(registry(Helper("here"), "docker.io"))
        assert (tmp_path / "asked").read_text().splitlines()[:2] == ["https://index.docker.io/v1/", "docker.io"]

    def test_a_helper_that_a_docker_config_names(self, install: Install, tmp_path: Path) -> None:
        install("one", "exit 1")
        install("all", """echo '{"Username":"u","Secret":"s"}'""")
        place = registry(DockerConfig(config(tmp_path, credHelpers={"quay.io": "one"}, credsStore="all")))
        assert read(place) == Claim("u", "s")
        assert complaint(place) is None
        written(tmp_path / "config.json", json.dumps({"credHelpers": {"quay.io": "nowhere"}}))
        assert complaint(place) == "there is no program docker-credential-nowhere on the PATH"
        with pytest.raises(Unusable, match="nowhere"):
            read(place)


class TestKeeping:
    async def test_it_is_read_when_needed_and_kept_for_a_while(self) -> None:
        reader, clock = Reader(), Clock()
        credentials = Credentials(clock, reader)
        assert reader.asked == 0
        assert {await credentials.of(KNOWN) for _ in range(3)} == {ONE}
        assert reader.asked == 1
        reader.says = Claim("user", "new")
        clock.now += FRESH
        assert await credentials.of(KNOWN) == Claim("user", "new")

    async def test_many_at_once_read_it_once(self) -> None:
        reader = Reader()
        credentials = Credentials(Clock(), reader)
        await asyncio.gather(*(credentials.of(KNOWN) for _ in range(10)))
        assert reader.asked == 1

    async def test_it_is_read_again_with_the_configuration(self) -> None:
        reader = Reader()
        credentials = Credentials(Clock(), reader)
        await credentials.of(KNOWN)
        reader.says = None
        credentials.reload()
        assert await credentials.of(KNOWN) is None

    async def test_what_was_being_read_meanwhile_does_not_count(self) -> None:
        entered, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        reads = iter([ONE, Claim("user", "new")])

        def slow(registry: Registry) -> Claim | None:
            found = next(reads)
            if found == ONE:
                loop.call_soon_threadsafe(entered.set)
                asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
            return found

        credentials = Credentials(Clock(), slow)
        first = asyncio.ensure_future(credentials.of(KNOWN))
        await entered.wait()
        credentials.reload()
        go.set()
        await first
        assert await credentials.of(KNOWN) == Claim("user", "new")

    async def test_a_clock_that_is_set_back(self) -> None:
        reader, clock = Reader(), Clock()
        credentials = Credentials(clock, reader)
        await credentials.of(KNOWN)
        clock.now -= 10
        await credentials.of(KNOWN)
        assert reader.asked == 2

    async def test_what_is_not_to_be_had_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        reader, clock = Reader(Unusable("/etc/p: no such file or directory")), Clock()
        credentials = Credentials(clock, reader)
        for _ in range(3):
            assert await credentials.of(KNOWN) is None
            clock.now += FRESH
        assert [record.getMessage() for record in caplog.records] == [
            "credentials for quay.io: /etc/p: no such file or directory"
        ]
        reader.says = Unusable("/etc/p: its first line is empty")
        await credentials.of(KNOWN)
        assert len(caplog.records) == 2

    async def test_one_that_is_wrong_is_not_shown_again_unless_it_changes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        reader, clock = Reader(), Clock()
        credentials = Credentials(clock, reader)
        credentials.refused(KNOWN, ONE)
        assert await credentials.of(KNOWN) is None
        reader.says = Claim("user", "changed")
        clock.now += FRESH
        assert await credentials.of(KNOWN) == reader.says
        reader.says = ONE
        clock.now += SHUNNED - FRESH
        credentials.reload()
        assert await credentials.of(KNOWN) == ONE
        assert "hunter2" not in caplog.text
        assert "refused as wrong" in caplog.text

    async def test_the_shunning_ends(self) -> None:
        clock = Clock()
        credentials = Credentials(clock, Reader())
        credentials.refused(KNOWN, ONE)
        clock.now += SHUNNED
        assert await credentials.of(KNOWN) == ONE

    def test_no_secret_in_its_text(self) -> None:
        assert "hunter2" not in repr(ONE)
