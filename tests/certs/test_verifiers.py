"""Rule 12 as clients see it.

Each verifier that is installed accepts the CA's leaves, and refuses what its key could sign beyond them: the chains of
`forge.cases` are signed with the very key, past all our own checks.
"""

import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from tests.certs.forge import MANY, Case, cases, certificates
from tests.certs.registry import serving

from entrepot.certs.authority import Authority
from entrepot.certs.leaves import LeafIssuer

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """With the clock of now: programs have no other."""
    return Authority.create(tmp_path_factory.mktemp("lib") / "ca", MANY, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def chains(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Case]:
    folder = tmp_path_factory.mktemp("chains")
    (folder / "ca.pem").write_bytes(authority.pem)
    return {case.write(folder): case for case in cases(authority, datetime.now(UTC))}


type Verifier = Callable[[Path, dict[Path, Case]], set[Path]]


def run(*command: str | Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=50, env={**os.environ, **(environ or {})}
    )


def openssl(ca: Path, chains: dict[Path, Case], *options: str) -> set[Path]:
    def accepts(chain: Path, case: Case) -> bool:
        host = ("-verify_ip" if case.host[0].isdigit() else "-verify_hostname", case.host)
        trusted = ("-no-CApath", "-CAfile", ca, "-untrusted", chain)
        return run("openssl", "verify", *options, *trusted, "-purpose", "sslserver", *host, chain).returncode == 0

    return {chain for chain, case in chains.items() if accepts(chain, case)}


def openssl_strict(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    return openssl(ca, chains, "-x509_strict")


def certtool(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    """GnuTLS."""
    server = ("--verify-purpose", "1.3.6.1.5.5.7.3.1")
    return {
        chain
        for chain, case in chains.items()
        if run(
            *("certtool", "--verify", "--load-ca-certificate", ca, "--infile", chain),
            *("--verify-hostname", case.host, *server),
        ).returncode
        == 0
    }


def vfychain(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    """NSS. Takes each certificate from a file of its own, and checks no host name."""
    database = f"sql:{ca.parent}"
    assert run("certutil", "-N", "-d", database, "--empty-password").returncode == 0
    assert run("certutil", "-A", "-d", database, "-n", "ca", "-t", "C,,", "-a", "-i", ca).returncode == 0
    accepted = set()
    for chain in chains:
        parts = []
        for number, certificate in enumerate(certificates(chain.read_bytes())):
            part = chain.with_suffix(f".{number}")
            part.write_bytes(certificate.public_bytes(Encoding.PEM))
            parts.append(part)
        if run("vfychain", "-d", database, "-pp", "-u", "1", "-a", *parts).returncode == 0:
            accepted.add(chain)
    return accepted


def javac(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    """Java. Takes no constraints from a trust anchor, which is why there are issuers."""
    done = run("java", HERE / "Verify.java", ca, *chains)
    assert done.returncode == 0, done.stderr
    return set(map(Path, done.stdout.split()))


def node(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    pairs = [text for chain, case in chains.items() for text in (chain, case.host)]
    done = run("node", HERE / "verify.cjs", ca, *pairs)
    assert done.returncode == 0, done.stderr
    return set(map(Path, done.stdout.split()))


def skopeo(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    """Go. A real client, through a proxy that takes every name to the server with the chain."""

    def accepts(chain: Path, case: Case) -> bool:
        with serving(chain) as ports:
            # Go never asks a proxy for loopback.
            host = f"{case.host}:{ports.registry}" if case.host[0].isdigit() else case.host
            environ = {"HTTPS_PROXY": f"http://127.0.0.1:{ports.proxy}", "NO_PROXY": "", "no_proxy": ""}
            environ |= {"SSL_CERT_FILE": str(ca), "SSL_CERT_DIR": "/nonexistent"}
            return run("skopeo", "inspect", "--raw", f"docker://{host}/app:1", environ=environ).returncode == 0

    return {chain for chain, case in chains.items() if accepts(chain, case)}


def python_ssl(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    """Python's ssl as urllib, requests and aiohttp use it; strict since 3.13."""

    def accepts(chain: Path, case: Case) -> bool:
        serving_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving_context.load_cert_chain(chain, chain.with_suffix(".key"))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(ca))
        client = context.wrap_bio(to_client, to_server, server_hostname=case.host)
        server = serving_context.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
        return client.getpeercert() is not None

    return {chain for chain, case in chains.items() if accepts(chain, case)}


def cryptography(ca: Path, chains: dict[Path, Case]) -> set[Path]:
    store = Store(certificates(ca.read_bytes()))

    def accepts(chain: Path, case: Case) -> bool:
        if case.host[0].isdigit():
            return False
        leaf, *others = certificates(chain.read_bytes())
        try:
            PolicyBuilder().store(store).build_server_verifier(x509.DNSName(case.host)).verify(leaf, others)
        except VerificationError:
            return False
        return True

    return {chain for chain, case in chains.items() if accepts(chain, case)}


VERIFIERS: Sequence[tuple[Verifier, tuple[str, ...]]] = [
    (openssl, ("openssl",)),
    (openssl_strict, ("openssl",)),
    (certtool, ("certtool",)),
    (vfychain, ("vfychain", "certutil")),
    (javac, ("java", "javac")),
    (node, ("node",)),
    (skopeo, ("skopeo",)),
    (python_ssl, ()),
    (cryptography, ()),
]


@pytest.mark.parametrize(("verifier", "programs"), VERIFIERS, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_12_the_constraints_are_accepted_and_enforced(
    verifier: Verifier, programs: tuple[str, ...], chains: dict[Path, Case], tmp_path: Path
) -> None:
    if absent := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(absent)}")
    ca = tmp_path / "ca.pem"
    ca.write_bytes((next(iter(chains)).parent / "ca.pem").read_bytes())
    accepted = {chains[chain].name for chain in verifier(ca, chains)}
    assert accepted == {case.name for case in chains.values() if case.good}


@pytest.mark.parametrize("verifier", [python_ssl, cryptography, openssl])
def test_a_leaf_of_ours_is_accepted_by_those_who_trust_us_only(
    verifier: Verifier, authority: Authority, tmp_path: Path
) -> None:
    leaf = LeafIssuer(authority, days=7, clock=lambda: datetime.now(UTC)).issue("dkr.ecr.region-number-7.amazonaws.com")
    case = Case("ours", leaf.name, True, leaf.chain_pem, leaf.key_pem)
    chain, other = case.write(tmp_path), Authority.create(tmp_path / "other", MANY, now=datetime.now(UTC))
    for pem, expected in ((authority.pem, {chain}), (other.pem, set())):
        ca = tmp_path / "ca.pem"
        ca.write_bytes(pem)
        assert verifier(ca, {chain: case}) == expected
    assert verifier(ca, {chain: case}) == set()
    wrong = Case("wrong", "quay.io", False, leaf.chain_pem, leaf.key_pem)
    ca.write_bytes(authority.pem)
    assert verifier(ca, {chain: wrong}) == set()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_a_folder_per_registry_is_enough_for_podman_s_family(authority: Authority, tmp_path: Path) -> None:
    """The name of the file is ours; only its ending counts."""
    leaf = LeafIssuer(authority, days=7, clock=lambda: datetime.now(UTC)).issue("quay.io")
    chain = Case("ours", "quay.io", True, leaf.chain_pem, leaf.key_pem).write(tmp_path)
    folder = tmp_path / "certs.d"
    folder.mkdir()
    with serving(chain) as ports:
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{ports.proxy}", "NO_PROXY": "", "no_proxy": ""}
        environ |= {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": "/nonexistent"}
        command = ("skopeo", "inspect", "--raw", "--cert-dir", folder, "docker://quay.io/app:1")
        refused = run(*command, environ=environ)
        assert "certificate signed by unknown authority" in refused.stderr
        (folder / "entrepot-0badcafe.crt").write_bytes(authority.pem)
        assert run(*command, environ=environ).returncode == 0
