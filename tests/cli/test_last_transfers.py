from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entrepot.cache.interface import DigestMismatch
from entrepot.cli.last_transfers import KEPT, LastTransfers
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.web.readings import read

DIGEST = Digest.of(b"x")


def transfer(error: EntrepotError | None = None) -> Any:
    return SimpleNamespace(error=error, digest=DIGEST, received=7, origin=SimpleNamespace(name="quay.io"))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "ok"), (EntrepotError("x"), "failed"), (DigestMismatch(DIGEST, "sha256:0", 1), "wrong")],
)
def test_the_page_reads_what_is_written(tmp_path: Path, error: EntrepotError | None, outcome: str) -> None:
    last = LastTransfers(tmp_path)
    last.flush()
    assert read(tmp_path).transfers == ()
    last.add(transfer(error), now=5.0, seconds=0.5)
    last.flush()
    (one,) = read(tmp_path).transfers
    assert (one.at, one.registry, one.digest, one.size, one.seconds, one.outcome) == (
        5.0, "quay.io", str(DIGEST), 7, 0.5, outcome
    )  # fmt: skip


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    last = LastTransfers(tmp_path)
    for n in range(KEPT + 3):
        last.add(transfer(), now=float(n), seconds=1.0)
    last.flush()
    found = read(tmp_path).transfers
    assert [one.at for one in found] == [float(n) for n in range(KEPT + 2, 2, -1)]
