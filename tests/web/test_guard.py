"""Rule 11: the page is for the network it serves, under the names of this box; browsers are told to be careful."""

from ipaddress import ip_network

import pytest
from tests.web.conftest import Open

from entrepot.web.guard import HEADERS, host_name, is_loopback, is_ours, may_look, own_names

EVERY = ["/", "/images", "/metrics", "/style.css", "/install.sh", "/ca.crt", "/ca.der", "/ca.p7b", "/nothing"]


@pytest.mark.parametrize("path", EVERY)
async def test_every_answer_is_dressed(open_page: Open, path: str) -> None:
    client = await open_page()
    answer = await client.get(path)
    assert answer.status == (404 if path == "/nothing" else 200)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "aiohttp" not in str(answer.headers)


@pytest.mark.parametrize("path", EVERY)
async def test_another_name_than_ours_is_refused(open_page: Open, path: str) -> None:
    """DNS rebinding: a page elsewhere has its own name point here."""
    client = await open_page()
    answer = await client.get(path, headers={"Host": "evil.example"})
    assert answer.status == 421
    assert "[web] hosts" in await answer.text()
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("path", EVERY)
async def test_other_networks_are_refused(open_page: Open, path: str) -> None:
    client = await open_page(allow=(ip_network("10.0.0.0/8"),))
    answer = await client.get(path)
    assert answer.status == 403
    assert "sha256" not in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed(open_page: Open, method: str) -> None:
    client = await open_page()
    assert (await client.request(method, "/")).status == 405


async def test_a_head_has_no_body(open_page: Open) -> None:
    client = await open_page()
    answer = await client.head("/")
    assert answer.status == 200
    assert await answer.read() == b""


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8080", True),
        ("BOX.example.", True),
        ("10.0.0.5:8080", True),
        ("[2001:db8::5]:8080", True),
        ("[fe80::1%eth0]", True),
        ("evil.example", False),
        ("box.example.evil.example", False),
        ("10.0.0.5.evil.example", False),
        ("10.0.0.5:80;rm -rf", False),
        ("[::1]x", False),
        ("", False),
        ("10.0.0.5:8080:1", False),
        ("localhost\N{KELVIN SIGN}", False),
    ],
)
def test_which_names_are_ours(host: str, ours: bool) -> None:
    assert is_ours(host, frozenset({"localhost", "box.example"})) is ours


def test_the_name_in_a_host_field() -> None:
    assert host_name("Box.Example.:8080") == "box.example"
    assert host_name("[2001:DB8::5]:8080") == "2001:db8::5"


def test_the_names_this_box_goes_by() -> None:
    text = "nameserver 10.0.0.1\nsearch old.example\nsearch lan. corp.example\noptions x\n"
    assert own_names("Box", text) == {"localhost", "box", "box.local", "box.lan", "box.corp.example"}
    assert own_names("box.dc.example.", "") == {"localhost", "box", "box.local", "box.dc.example"}
    assert own_names("", "search .") == {"localhost"}


def test_who_may_look() -> None:
    private = (ip_network("10.0.0.0/8"), ip_network("fe80::/10"))
    assert may_look("10.1.2.3", private)
    assert may_look("::ffff:10.1.2.3", private)
    assert may_look("fe80::1%eth0", private)
    assert not may_look("192.0.2.1", private)
    assert not may_look(None, private)
    assert not may_look("nonsense", private)
    assert may_look("192.0.2.1", "any")
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("::ffff:127.0.0.2")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback(None)
