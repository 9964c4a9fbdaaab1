from pathlib import Path

import pytest

from entrepot.cli.banner import Serving, client_command, fingerprint, lines, rendered
from entrepot.cli.ports import Plan

PEM = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"
ABC = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD"


def serving(plan: Plan, answers: tuple[str, ...] = ("auto",), outward: str | None = "10.0.0.5") -> Serving:
    return Serving("1.0", plan, 2, answers, outward, Path("/ca/ca.crt"), Path("/store"))


FULL = Plan(("0.0.0.0", "::"), 443, ("0.0.0.0", "::"), 53)


def test_everything_somebody_needs_to_know() -> None:
    found = dict(lines(serving(FULL), PEM))
    assert found == {
        "entrepot": "1.0",
        "serving https": "0.0.0.0:443, [::]:443 (2 workers)",
        "serving dns": "0.0.0.0:53, [::]:53 (udp and tcp)",
        "dns answers": "with the address a query comes in on: 10.0.0.5 to the network",
        "store": "/store",
        "ca": "/ca/ca.crt",
        "ca sha-256": ABC,
        "on a client": "scp root@10.0.0.5:/ca/ca.crt /usr/local/share/ca-certificates/entrepot.crt && "
        "update-ca-certificates && echo nameserver 10.0.0.5 > /etc/resolv.conf",
    }


def test_with_the_page_a_client_needs_nobody_who_may_log_in() -> None:
    plan = Plan(("0.0.0.0",), 443, ("0.0.0.0",), 53, (), ("0.0.0.0",), 8080)
    found = dict(lines(serving(plan), PEM))
    assert found["serving web"] == "0.0.0.0:8080: page, metrics, set-up of clients"
    assert found["on a client"] == (
        "curl -fsS http://10.0.0.5:8080/install.sh | sh && echo nameserver 10.0.0.5 > /etc/resolv.conf"
    )
    assert "http://[2001:db8::5]:8080/" in client_command(serving(plan, outward="2001:db8::5"))


def test_what_is_off_is_not_listed() -> None:
    found = dict(lines(serving(Plan(("10.0.0.5",), 443, (), 0)), PEM))
    assert "serving dns" not in found
    assert "resolv.conf" not in found["on a client"]
    assert "resolv.conf" not in client_command(serving(Plan(("10.0.0.5",), 8443, ("10.0.0.5",), 5353)))
    assert "serving https" not in dict(lines(serving(Plan((), 0, ("10.0.0.5",), 53)), PEM))


@pytest.mark.parametrize(
    ("answers", "outward", "text"),
    [
        (("10.0.0.7", "10.0.0.8"), "10.0.0.5", "with 10.0.0.7, 10.0.0.8"),
        (("auto",), None, "with the address a query comes in on"),
    ],
)
def test_what_dns_answers(answers: tuple[str, ...], outward: str | None, text: str) -> None:
    assert dict(lines(serving(FULL, answers, outward), PEM))["dns answers"] == text


def test_the_command_for_ipv6_and_for_an_unknown_address() -> None:
    assert "root@[2001:db8::5]:/ca" in client_command(serving(FULL, outward="2001:db8::5"))
    assert "nameserver 2001:db8::5 " in client_command(serving(FULL, outward="2001:db8::5"))
    assert "root@THIS-BOX:/ca" in client_command(serving(FULL, outward=None))


def test_the_fingerprint_is_of_the_certificate() -> None:
    assert fingerprint("comment\n" + PEM + PEM) == ABC.replace(":", "")
    assert fingerprint("nothing") == ""


def test_columns_and_modest_colour() -> None:
    assert rendered([("ca", "x"), ("store", "y")], colour=False) == ["ca             x", "store          y"]
    assert rendered([("ca", "x")], colour=True) == ["\033[1mca           \033[0m  x"]
