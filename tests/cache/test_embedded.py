"""The two halves of the embedded store together."""

import threading
from pathlib import Path

from tests.cache.filling import Machine, content, holds, put

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.embedded import open_blobs, open_records, protected_by
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits


async def test_a_record_protects_a_blob_from_eviction_in_any_thread(tmp_path: Path) -> None:
    machine, records = Machine(tmp_path, Limits(grace=10.0)), open_records(tmp_path)
    held = put(machine.store(), content(1))
    put(machine.store(), content(2))
    await records.put(f"protected/{held}", {"by": "a hold"})
    store = FileBlobs(
        tmp_path, Limits(size=BLOCK, grace=10.0), protected=protected_by(records), clock=lambda: machine.now + 100
    )
    thread = threading.Thread(target=store.space.make_headroom)
    thread.start()
    thread.join()
    assert holds(store) == {held}
    await records.delete(f"protected/{held}")
    store.space.evictor.recheck_held()
    store.space.make_headroom()
    assert holds(store) == set()
    store.close()
    await records.close()


def test_limits_are_handed_on(tmp_path: Path) -> None:
    assert open_blobs(tmp_path, Limits(size=5)).space.usage().size == 5
