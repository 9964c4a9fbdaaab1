"""An authority for three registries and, where size matters, one for as many names as the catalogue has."""

from pathlib import Path

import pytest
from tests.certs.forge import NOW, SUBTREES

from entrepot.certs.authority import Authority


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a CA will be; does not exist yet."""
    return tmp_path / "lib" / "ca"


@pytest.fixture
def authority(directory: Path) -> Authority:
    return Authority.create(directory, SUBTREES, now=NOW)
