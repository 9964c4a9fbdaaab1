"""Whoever is given something private is in the audit log, and no secret is (DESIGN rule 3)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import pytest
from tests.engine.errand_bench import PRIVATE, PUBLIC, Bench, blob, errand_bench, manifest
from tests.fakes.guarded import NOBODY
from tests.fakes.tokens import basic


@pytest.fixture
async def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Bench]:
    caplog.set_level(logging.INFO, "entrepot.audit")
    async with errand_bench(tmp_path, account=False) as made:
        yield made


def lines(caplog: pytest.LogCaptureFixture) -> list[Mapping[str, object]]:
    """Since the last call."""
    found = [record.__dict__["fields"] for record in caplog.records if record.name == "entrepot.audit"]
    caplog.clear()
    return cast("list[Mapping[str, object]]", found)


async def ann_has_pulled(bench: Bench) -> tuple[str, str]:
    for _ in range(2):
        token = await bench.log_in("ann", PRIVATE)
        await bench.pull(bench.private, PRIVATE, token)
    return await bench.log_in("ann", PRIVATE)


async def test_every_part_of_a_private_image(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    token = await ann_has_pulled(bench)
    assert {line["ground"] for line in lines(caplog)} == {"checked", "granted"}
    await bench.pull(bench.private, PRIVATE, token)
    found = lines(caplog)
    digests = [bench.private.index, bench.private.manifest, bench.private.config, *bench.private.layers]
    assert [line["digest"] for line in found] == [str(digest) for digest in digests]
    assert found[0]["tag"] == "1"
    assert {
        (line["client"], line["registry"], line["repository"], line["private"], line["ground"], line["verdict"])
        for line in found
    } == {("192.0.2.1", "registry.test", PRIVATE, "yes", "granted", "hit")}


async def test_one_person_is_one_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever token, and never anything that could be used."""
    bench.registry.readers[PRIVATE].add("bob")
    await ann_has_pulled(bench)
    lines(caplog)
    names = []
    for user in ("ann", "ann", "bob"):
        token = await bench.log_in(user, PRIVATE)
        await bench.get(manifest(PRIVATE, "1"), token)
        names.append({str(line["who"]) for line in lines(caplog)})
    assert names[0] == names[1]
    assert names[0].isdisjoint(names[2])
    assert all(name.startswith(("account:", "credential:")) for each in names for name in each)
    assert all(len(name.partition(":")[2]) == 16 for each in names for name in each)


async def test_who_was_checked_by_us_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await ann_has_pulled(bench)
    await bench.registry.connections.unplug()
    await bench.get(manifest(PUBLIC, "never-heard-of"))
    async with asyncio.timeout(10):
        while not bench.engine.health.is_out(bench.known.upstream):
            await asyncio.sleep(0.01)
    lines(caplog)
    token = await bench.log_in("ann", PRIVATE)
    answers = await bench.pull(bench.private, PRIVATE, token)
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert {line["ground"] for line in lines(caplog)} == {"verified offline"}


async def test_who_is_refused_is_not_there(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await ann_has_pulled(bench)
    lines(caplog)
    nobody = await bench.log_in(NOBODY, PRIVATE)
    for headers in ((), (nobody,), (("Authorization", "Bearer made-up"),), (basic("ann", "wrong"),)):
        for target in (manifest(PRIVATE, "1"), blob(PRIVATE, bench.private.layers[0])):
            answer, _ = await bench.get(target, *headers)
            assert answer.status == 401
    assert lines(caplog) == []


async def test_what_is_public_is_nobodys_business(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.pull(bench.public, PUBLIC, await bench.log_in(NOBODY, PUBLIC))
    await bench.pull(bench.public, PUBLIC, await bench.log_in("ann", PUBLIC))
    assert lines(caplog) == []


async def test_what_nobody_has_looked_at_yet_counts_as_private(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    answer = await bench.ask("GET", manifest(PUBLIC, "1"), await bench.log_in("ann", PUBLIC))
    assert answer.status == 200
    (line,) = lines(caplog)
    assert (line["private"], line["ground"], line["verdict"]) == ("unknown", "checked", "miss")


async def test_ranges_conditions_and_heads_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    token = await ann_has_pulled(bench)
    lines(caplog)
    target = blob(PRIVATE, bench.private.layers[1])
    await bench.get(target, token, ("Range", "bytes=5-9"))
    await bench.get(target, token, ("If-None-Match", f'"{bench.private.layers[1]}"'))
    await bench.ask("HEAD", target, token)
    await bench.ask("HEAD", manifest(PRIVATE, "1"), token)
    assert [line["status"] for line in lines(caplog)] == [206, 304, 200, 200]


async def test_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """As text, as it is written, and in the fields."""
    token = await ann_has_pulled(bench)
    text = caplog.text + repr([record.__dict__ for record in caplog.records])
    assert text.count("admitted client=192.0.2.1 registry=registry.test") > 10
    for secret in (
        "ann-password",
        basic("ann", "ann-password")[1].partition(" ")[2],
        token[1].partition(" ")[2],
        "ann",
    ):
        assert secret not in text, secret
