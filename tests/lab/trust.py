"""What a client's machine trusts: one authority and nothing else."""

from pathlib import Path

from tests.lab.net import Machine
from tests.lab.product import ENTREPOT

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def trust_nobody(machine: Machine) -> None:
    """Take every authority out: the bundle's, the single files' (which Go reads too), and those a rebuild would add."""
    sources = "/usr/local/share/ca-certificates"
    machine.run("sh", "-c", f"rm -rf {BUNDLE.parent} {sources} && mkdir -p {BUNDLE.parent} {sources}")
    machine.path("/etc/ca-certificates.conf").write_text("")


def trust_by_hand(machine: Machine, authority_pem: bytes) -> None:
    trust_nobody(machine)
    machine.path(BUNDLE).write_bytes(authority_pem)


def trust_entrepot(machine: Machine, ca_file: Path) -> None:
    """As its users do: with Entrepot's own command, run on the client."""
    trust_nobody(machine)
    machine.run(str(ENTREPOT), "ca", "install", "--store", "debian", "--ca", str(ca_file))
