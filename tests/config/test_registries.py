from pathlib import Path

import pytest

from entrepot.config.registries import (
    Credentials,
    DockerConfig,
    Helper,
    PasswordFile,
    parse_credentials,
    show_credentials,
)

GOOD: list[tuple[dict[str, str], Credentials | None]] = [
    ({}, None),
    ({"username": "u", "password_file": "/p"}, PasswordFile("u", Path("/p"))),
    ({"docker_config": "/c.json"}, DockerConfig(Path("/c.json"))),
    ({"helper": "ecr-login"}, Helper("ecr-login")),
]


@pytest.mark.parametrize(("raw", "credentials"), GOOD)
def test_the_ways_in(raw: dict[str, str], credentials: Credentials | None) -> None:
    assert parse_credentials(raw) == credentials
    assert show_credentials(credentials) == raw


def test_a_helper_may_be_called_by_its_program() -> None:
    assert parse_credentials({"helper": "docker-credential-ecr-login"}) == Helper("ecr-login")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"username": "u", "password": "hunter2"}, '"password": secrets do not belong here'),
        ({"token": "hunter2"}, '"token": secrets do not belong here'),
        ({"user": "u"}, 'unknown key "user"; did you mean "username"?'),
        ({"zzz": "u"}, 'unknown key "zzz": must be'),
        ({"username": "u"}, "must be {}, {username, password_file}"),
        ({"helper": "a", "docker_config": "/b"}, "must be {}"),
        ({"helper": "../evil"}, "helper must be the NAME"),
        ({"helper": 5}, "helper must be in quotes"),
        ({"docker_config": ""}, "docker_config must be a path"),
        ({"username": "a\nb", "password_file": "/p"}, "username must be text on one line"),
        ("hunter2", "must be {}"),
    ],
)
def test_what_is_refused_without_quoting_a_secret(raw: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_credentials(raw)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
