"""The pages: what they say, to whom, and that nothing of it can be turned against who looks."""

import re
from dataclasses import replace

import pytest
from tests.web.conftest import Open, furnish, write_counts

from entrepot.cache.embedded import open_records
from entrepot.web.pages import Pages
from entrepot.web.settings import WebSettings


async def text_of(open_page: Open, path: str, **changes: object) -> str:
    client = await open_page(**changes)
    answer = await client.get(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html; charset=utf-8")
    return await answer.text()


def words(page: str) -> str:
    """What somebody reads."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


async def test_a_box_that_has_done_nothing_yet(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    page = words(await text_of(open_page, "/"))
    assert "All is well" in page
    assert "Nobody has asked for anything yet." in page
    assert "Nothing has been fetched since the start." in page
    assert "12.0 KiB of 10.0 GiB used, 2 blobs" in page


async def test_the_figures(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    write_counts(
        settings.store, "proxy-0", requests=100, requests_hit=60, requests_stale=15, requests_miss=20,
        requests_joined=5, bytes_sent=4 << 30, bytes_hit=3 << 30,
        **{"requests{kind=blob,registry=ghcr.io,verdict=hit}": 6},
    )  # fmt: skip
    write_counts(settings.store, "fetch-0", bytes_upstream=1 << 30)
    page = words(await text_of(open_page, "/"))
    assert "Hits, by requests 75 %" in page
    assert "Hits, by bytes 75 %" in page
    assert "Saved 3.0 GiB 4.0 GiB sent, 1.0 GiB fetched" in page
    assert "ghcr.io answers" in page
    assert "quay.io" not in page


async def test_trouble_comes_first(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    records = open_records(settings.store)
    await records.put(
        "down/https://quay.io",
        {"state": "open", "since": 5.0, "why": "connection refused", "confirmed": True, "at": 6.0, "by": "proxy-0"},
    )
    await records.close()
    write_counts(settings.store, "proxy-0", **{"quota_docker.io_remaining": 0, "quota_docker.io_seen": 1})
    page = words(await text_of(open_page, "/"))
    assert page.index("Something is wrong") < page.index("https://quay.io (quay.io) down for")
    assert "connection refused" in page
    assert "docker.io nothing is left of the quota" in page
    assert page.index("nothing is left") < page.index("Served")


async def test_without_a_worker_that_shows_a_certificate_something_is_wrong(
    open_page: Open, settings: WebSettings
) -> None:
    await furnish(settings.store)
    assert "no worker answers" in await text_of(open_page, "/", https_port=443)

    async def leaf() -> float:
        return 5.0

    assert "no worker answers" not in await text_of(open_page, "/", https_port=443, leaf=leaf)


async def test_what_cannot_be_read_leaves_a_gap_and_a_page(open_page: Open, settings: WebSettings) -> None:
    settings.store.write_text("a file")
    page = words(await text_of(open_page, "/"))
    assert "Something to look at" in page
    assert "Nothing is known of the store." in page
    assert "no records" in words(await text_of(open_page, "/images"))


@pytest.mark.parametrize("path", ["/", "/images", "/images?q=app"])
async def test_a_page_needs_nothing_from_elsewhere_and_no_script(
    open_page: Open, settings: WebSettings, path: str
) -> None:
    await furnish(settings.store)
    page = await text_of(open_page, path)
    assert "<script" not in page
    assert " style=" not in page
    assert not re.findall(r"""(?:src|href|action)=["'](?:https?:)?//""", page)
    assert page.count("<h1>") == 1
    assert '<html lang="en">' in page
    assert 'href="#main"' in page
    assert 'aria-current="page"' in page
    client = await open_page()
    style = await (await client.get("/style.css")).text()
    assert "url(" not in style
    assert len(page) + len(style) < 100_000  # the first view


async def test_the_images(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    page = words(await text_of(open_page, "/images"))
    assert "3 tags" in page
    assert re.search(
        r"quay\.io/ org/app :1\.0 sha256:[0-9a-f]{12} linux/amd64 of 2 6\.8 KiB \d+s ago 1m 3\ds ago", page
    )
    assert "org/secret :1.0 not public" in page


@pytest.mark.parametrize("found", ["app", "APP quay", "org/app:1.0"])
async def test_a_search(open_page: Open, settings: WebSettings, found: str) -> None:
    await furnish(settings.store)
    page = words(await text_of(open_page, f"/images?q={found}"))
    assert "1 tag for" in page
    assert "org/app" in page
    assert "org/tool" not in page


@pytest.mark.parametrize("audience", ["nobody", "loopback"])
async def test_names_of_private_images_are_for_who_may_see_them(
    open_page: Open, settings: WebSettings, audience: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnish(settings.store)
    monkeypatch.setattr("entrepot.web.pages.is_loopback", lambda peer: False)  # somebody on the network
    for path in ("/images", "/images?q=secret", "/", "/metrics"):
        client = await open_page(private_images=audience)
        assert "org/secret" not in await (await client.get(path)).text()
    page = words(await text_of(open_page, "/images", private_images=audience))
    assert "1 tag of repositories that are not known to be public is shown" in page
    assert "org/secret" in await text_of(open_page, "/images", private_images="allowed")


async def test_what_others_have_named_is_text(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    evil = "<script>alert(1)</script>"
    records = open_records(settings.store)
    await records.put(
        "tag/quay.io/evil/x/y",
        {"registry": evil, "repository": evil, "tag": evil, "digest": evil, "media_type": "", "checked": 1.0},
    )
    await records.put("down/https://evil", {
        "state": "open", "since": 5.0, "why": evil, "confirmed": True, "at": 6.0, "by": "x"})  # fmt: skip
    await records.close()
    for path in ("/", "/images", f"/images?q={evil}", f"/images?page={evil}"):
        page = await text_of(open_page, path)
        assert "<script" not in page
    assert "&lt;script&gt;" in await text_of(open_page, f"/images?q={evil}")


async def test_many_images_have_pages(open_page: Open, settings: WebSettings) -> None:
    await furnish(settings.store)
    records = open_records(settings.store)
    tag = {"registry": "quay.io", "repository": "org/many", "digest": "sha256:" + "0" * 64, "media_type": "x"}
    await records.put_many({f"tag/quay.io/org/many/{n}/x": {**tag, "tag": f"{n:03}", "checked": 0} for n in range(120)})
    await records.close()
    first = await text_of(open_page, "/images?q=many")
    assert "120 tags for" in words(first)
    assert "page 1 of 3" in words(first)
    (following,) = re.findall(r'href="([^"]*)" rel="next"', first)
    second = await text_of(open_page, following.replace("&amp;", "&"))
    assert ":050" in words(second)
    assert ":049" not in words(second)
    assert "Nothing that is held" in await text_of(open_page, "/images?q=many&page=9")


async def test_changed_settings_count_from_the_next_request(settings: WebSettings) -> None:
    pages = Pages(settings)
    pages.reconfigure(replace(settings, version="9.9"))
    try:
        assert (await pages._now()).run.processes == ()
        assert pages._settings.version == "9.9"
    finally:
        await pages.close()


async def test_what_was_gathered_a_moment_ago_is_shown_again(settings: WebSettings) -> None:
    now = [0.0]
    pages = Pages(settings, lambda: now[0])
    try:
        first = await pages._now()
        assert await pages._now() is first
        now[0] = 1.5
        assert await pages._now() is not first
    finally:
        await pages.close()
