"""Password files and docker's configuration: what is read, what is refused, and that nothing of it is told."""

import json
import os
from base64 import b64encode
from pathlib import Path

import pytest

from entrepot.engine.claims import Claim
from entrepot.engine.secretfiles import LONGEST, Ask, Unusable, in_docker_config, password_in

SECRET = "correct horse"


def written(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def config(folder: Path, mode: int = 0o600, **document: object) -> Path:
    return written(folder / "config.json", json.dumps(document), mode)


def auth(text: str) -> dict[str, str]:
    return {"auth": b64encode(text.encode()).decode()}


class TestPasswordFiles:
    @pytest.mark.parametrize(
        "content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n", f"{SECRET}\nanother line\n", f"{SECRET}\n\n"]
    )
    def test_the_first_line(self, tmp_path: Path, content: str) -> None:
        assert password_in(written(tmp_path / "p", content)) == SECRET

    def test_white_space_is_part_of_it(self, tmp_path: Path) -> None:
        assert password_in(written(tmp_path / "p", " a\tb \n")) == " a\tb "

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o602, 0o777])
    def test_one_that_others_can_read_or_change_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = written(tmp_path / "p", SECRET, mode)
        with pytest.raises(Unusable) as refusal:
            password_in(path)
        assert str(refusal.value) == (
            f"{path}: other users can read or change it, so it is not used; run `chmod o= {path}`"
        )

    @pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
    def test_a_group_is_somebodys_decision(self, tmp_path: Path, mode: int) -> None:
        assert password_in(written(tmp_path / "p", SECRET, mode)) == SECRET

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("", "its first line is empty"),
            ("\nx", "its first line is empty"),
            (b"\xff\xfe", "its first line is not UTF-8"),
            (b"x" * (LONGEST + 1), "is longer than"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, content: str | bytes, why: str) -> None:
        with pytest.raises(Unusable, match=why):
            password_in(written(tmp_path / "p", content))

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(Unusable, match="p: no such file or directory"):
            password_in(tmp_path / "p")

    def test_a_folder_or_a_pipe_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(Unusable, match=r"is not a file|is a directory"):
                password_in(path)

    def test_a_link_is_what_it_points_to(self, tmp_path: Path) -> None:
        """As Kubernetes mounts secrets."""
        (tmp_path / "link").symlink_to(written(tmp_path / "p", SECRET))
        assert password_in(tmp_path / "link") == SECRET


class TestDockerConfig:
    @pytest.mark.parametrize(
        ("entry", "claim"),
        [
            (auth("user:pass:word"), Claim("user", "pass:word")),
            (auth("user:password\0\0"), Claim("user", "password")),
            ({"username": "user", "password": "p"}, Claim("user", "p")),
            ({"identitytoken": "long"}, Claim("", "long")),
            ({**auth("00000000-0000-0000-0000-000000000000:"), "identitytoken": "long"}, Claim("", "long")),
        ],
    )
    def test_an_entry(self, tmp_path: Path, entry: dict[str, str], claim: Claim) -> None:
        path = config(tmp_path, auths={"quay.io": entry, "ghcr.io": auth("another:one")})
        assert list(in_docker_config(path, ["quay.io"])) == [claim]

    @pytest.mark.parametrize(
        "key", ["quay.io", "https://quay.io", "https://quay.io/", "https://quay.io/v1/", "quay.io/v2", "QUAY.IO"]
    )
    def test_a_registry_is_called_many_things(self, tmp_path: Path, key: str) -> None:
        path = config(tmp_path, auths={key: auth("u:p")})
        assert list(in_docker_config(path, ["quay.io"])) == [Claim("u", "p")]

    @pytest.mark.parametrize("key", ["quay.io/org", "quay.io:8443", "https://quay.io/v1/?x", "http://[", "*.quay.io"])
    def test_what_is_another_thing(self, tmp_path: Path, key: str) -> None:
        """podman keeps entries for parts of a registry, which are not for all of it."""
        assert list(in_docker_config(config(tmp_path, auths={key: auth("u:p")}), ["quay.io"])) == []

    def test_the_first_name_counts_first(self, tmp_path: Path) -> None:
        path = config(tmp_path, auths={"https://index.docker.io/v1/": auth("u:p"), "docker.io": auth("v:q")})
        assert list(in_docker_config(path, ["docker.io", "index.docker.io"])) == [Claim("v", "q"), Claim("u", "p")]

    def test_helpers_go_first(self, tmp_path: Path) -> None:
        path = config(
            tmp_path, auths={"quay.io": auth("u:p")}, credHelpers={"quay.io": "one", "x.io": "no"}, credsStore="all"
        )
        assert list(in_docker_config(path, ["quay.io"])) == [Ask("one"), Ask("all"), Claim("u", "p")]

    def test_what_a_helper_has_left_behind(self, tmp_path: Path) -> None:
        path = config(tmp_path, 0o644, auths={"quay.io": {}}, credsStore="desktop")
        assert list(in_docker_config(path, ["quay.io"])) == [Ask("desktop")]

    def test_a_secret_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        path = config(tmp_path, 0o644, auths={"quay.io": auth("u:p")})
        with pytest.raises(Unusable, match=f"other users can read or change it, .* `chmod o= {path}`"):
            list(in_docker_config(path, ["quay.io"]))

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("nonsense", "is not the config.json of docker"),
            ("[]", "is not the config.json of docker"),
            ('{"auths":{"quay.io":5}}', "auths has no table for quay.io"),
            ('{"auths":{"quay.io":{"auth":"hunter2!"}}}', "does not hold a user and a password"),
            ('{"auths":{"quay.io":{"username":"u"}}}', "does not hold a user and a password"),
            ('{"auths":{"quay.io":{"auth":"aHVudGVyMg=="}}}', "does not hold a user and a password"),
            ('{"credHelpers":{"quay.io":5}}', "credHelpers has no name"),
        ],
    )
    def test_what_is_wrong_is_said_without_the_secret(self, tmp_path: Path, text: str, why: str) -> None:
        path = written(tmp_path / "config.json", text)
        with pytest.raises(Unusable) as refusal:
            list(in_docker_config(path, ["quay.io"]))
        assert why in str(refusal.value)
        assert "hunter2" not in str(refusal.value)
        assert str(path) in str(refusal.value)

    def test_the_entry_of_another_is_no_concern(self, tmp_path: Path) -> None:
        assert list(in_docker_config(config(tmp_path, auths={"ghcr.io": 5}), ["quay.io"])) == []
