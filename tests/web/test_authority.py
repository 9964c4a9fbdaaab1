"""What is shown of the CA is what `entrepot.certs` says of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrepot.certs import rotation
from entrepot.certs.authority import fingerprint
from entrepot.certs.errors import AuthorityError, NoAuthority
from entrepot.certs.rotation import published
from entrepot.web.authority import trusted
from entrepot.web.settings import WebSettings


def test_before_and_during_a_rotation(settings: WebSettings) -> None:
    found, true = trusted(settings.certs), published(settings.certs)
    assert found.next is None
    assert [one.fingerprint for one in found.all] == [fingerprint(true.current)]
    assert found.current.not_after == true.current.not_valid_after_utc.timestamp()
    true = rotation.begin(settings.certs, ["quay.io"], now=datetime.now(UTC))
    assert [one.fingerprint for one in trusted(settings.certs).all] == [fingerprint(one) for one in true.trusted]


def test_none_and_a_broken_one(settings: WebSettings, tmp_path: Path) -> None:
    with pytest.raises(NoAuthority):
        trusted(tmp_path / "nothing")
    file = settings.certs / "current/ca.crt"
    for content in ("", "nonsense", file.read_text()[:200], "\N{EURO SIGN}"):
        file.write_text(content)
        with pytest.raises(AuthorityError, match="holds no certificate"):
            trusted(settings.certs)
