"""What makes a client trust this box: the CA in its forms, and a script for the stores of the usual systems.

Of the CA directory only certificates are read, never a key. The script carries the certificates itself, so that what is
shown is what is installed, and needs nothing but a POSIX shell and the system's own command.
"""

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from entrepot.certs import profiles
from entrepot.certs.authority import fingerprint
from entrepot.certs.rotation import Published
from entrepot.certs.stores import STORES, SystemStore, file_name

_SCRIPT: Final = "templates/install.sh"
# What may stand in the script: it comes from the client.
_BOX: Final = re.compile(r"[A-Za-z0-9.:_%\[\]-]{1,260}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Form:
    """The CA as a file."""

    content: bytes
    media_type: str
    file_name: str


def pem(found: Published) -> Form:
    """Both certificates during a rotation."""
    return Form(found.pem, "application/x-pem-file", "entrepot-ca.crt")


def der(found: Published) -> Form:
    """One certificate: during a rotation the one that signs today."""
    return Form(found.current.public_bytes(Encoding.DER), "application/pkix-cert", "entrepot-ca.der")


def p7b(found: Published) -> Form:
    """Both certificates during a rotation."""
    content = pkcs7.serialize_certificates(list(found.trusted), Encoding.DER)
    return Form(content, "application/x-pkcs7-certificates", "entrepot-ca.p7b")


def script(found: Published, box: str) -> Form:
    """For `sh`; `box` is the address or name under which the client has found us."""
    every = [one for one in (found.current, found.next, found.previous) if one is not None]
    text = files(__package__).joinpath(_SCRIPT).read_text(encoding="utf-8")
    for name, value in {
        "box": box if _BOX.fullmatch(box) else "THIS-BOX",
        "fingerprints": "\n".join(f"  SHA-256 {fingerprint(one)}" for one in found.trusted),
        "ours": " ".join(file_name(one) for one in found.trusted),
        "known": " ".join(file_name(one) for one in every),
        "certificates": "\n".join(_case(one) for one in found.trusted),
        "stores": "\n".join(_store(store) for store in STORES),
    }.items():
        text = text.replace(f"@{name}@", value)
    return Form(text.encode(), "text/x-shellscript; charset=utf-8", "install.sh")


def _case(certificate: x509.Certificate) -> str:
    body = profiles.pem(certificate).decode("ascii").strip()
    return f"    {file_name(certificate)}) cat <<'END'\n{body}\nEND\n      ;;"


def _store(store: SystemStore) -> str:
    systems = " | ".join(sorted(store.systems))
    command = " ".join(store.command)
    return f"      {systems}) anchors={store.anchors}; command='{command}'; package={store.package} ;;"
