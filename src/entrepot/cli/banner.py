"""What `up` prints when everything serves: pure, from what is in force to lines.

Decides what somebody who has just started it needs to know, and the one command that makes a client use it.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cli.addresses import shown
from entrepot.cli.ports import Plan

_DNS: Final = 53
_BOLD: Final = "\033[1m"
_PLAIN: Final = "\033[0m"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
# Where Debian and its kin take further authorities from; `entrepot ca install` knows the others.
_ANCHOR: Final = "/usr/local/share/ca-certificates/entrepot.crt"


@dataclass(frozen=True, slots=True)
class Serving:
    """What is in force."""

    version: str
    plan: Plan
    workers: int
    answers: tuple[str, ...]
    """The addresses DNS answers with; ("auto",) = the one a query came in on."""
    outward: str | None
    """The address of this box towards its network."""
    ca: Path
    """The file clients are to trust."""
    store: Path


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate, as `openssl x509 -fingerprint -sha256` shows it; "" if there is none."""
    body = pem.partition(_BEGIN)[2].partition(_END)[0]
    return hashlib.sha256(base64.b64decode(body)).hexdigest().upper() if body else ""


def lines(serving: Serving, pem: str) -> list[tuple[str, str]]:
    """(label, text) each."""
    plan = serving.plan
    found = [("entrepot", serving.version)]
    if plan.https_port:
        found.append(("serving https", f"{_all(plan.https, plan.https_port)} ({_count(serving.workers, 'worker')})"))
    if plan.dns_port:
        found.append(("serving dns", f"{_all(plan.dns, plan.dns_port)} (udp and tcp)"))
        found.append(("dns answers", _answers(serving)))
    if plan.web_port:
        found.append(("serving web", f"{_all(plan.web, plan.web_port)}: page, metrics, set-up of clients"))
    digits = fingerprint(pem)
    found.append(("store", str(serving.store)))
    found.append(("ca", str(serving.ca)))
    found.append(("ca sha-256", ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))))
    found.append(("on a client", client_command(serving)))
    return found


def client_command(serving: Serving) -> str:
    """Run as root there: trust the CA, ask this box for names."""
    box = serving.outward or "THIS-BOX"
    trust = f"scp root@{f'[{box}]' if ':' in box else box}:{serving.ca} {_ANCHOR} && update-ca-certificates"
    if serving.plan.web_port:
        trust = f"curl -fsS http://{shown(box, serving.plan.web_port)}/install.sh | sh"
    # resolv.conf(5) knows no ports: another one is for whoever redirects to it.
    return f"{trust} && echo nameserver {box} > /etc/resolv.conf" if serving.plan.dns_port == _DNS else trust


def _answers(serving: Serving) -> str:
    if serving.answers != ("auto",):
        return "with " + ", ".join(serving.answers)
    here = f": {serving.outward} to the network" if serving.outward else ""
    return f"with the address a query comes in on{here}"


def _all(addresses: Iterable[str], port: int) -> str:
    return ", ".join(shown(address, port) for address in addresses)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rendered(found: Iterable[tuple[str, str]], *, colour: bool) -> list[str]:
    """For people: labels in a column."""
    on, off = (_BOLD, _PLAIN) if colour else ("", "")
    return [f"{on}{label:<13}{off}  {text}" for label, text in found]
