import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from tests.certs.forge import MANY, NOW, SUBTREES, certificates

from entrepot.certs import files, profiles
from entrepot.certs.authority import VALID_YEARS, Authority, fingerprint
from entrepot.certs.errors import AuthorityError, AuthorityExists, InvalidSubtree, NameNotPermitted, NoAuthority

NOT_A_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def folder(directory: Path) -> Path:
    return directory / (directory / "current").readlink()


def test_it_is_what_was_asked_for(authority: Authority) -> None:
    assert authority.permitted == tuple(sorted(SUBTREES))
    assert profiles.permitted(authority.certificate) == tuple(sorted(SUBTREES))
    assert authority.certificate.not_valid_after_utc == NOW + timedelta(days=365 * VALID_YEARS)
    assert certificates(authority.pem) == [authority.certificate]


def test_loading_gives_the_same(authority: Authority) -> None:
    again = Authority.load(authority.directory)
    assert (again.certificate, again.permitted) == (authority.certificate, authority.permitted)
    assert again.issuer("quay.io") == authority.issuer("quay.io")


def test_rule_12_the_root_s_key_is_nowhere(authority: Authority) -> None:
    key = load_pem_private_key((folder(authority.directory) / files.KEY).read_bytes(), None)
    assert key.public_key() != authority.certificate.public_key()
    assert key.public_key() == authority.issuer("quay.io").public_key()
    keys = [path for path in authority.directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [folder(authority.directory) / files.KEY]


def test_issuers_share_the_names_between_them(directory: Path) -> None:
    authority = Authority.create(directory, MANY, now=NOW)
    issuers = certificates((folder(directory) / files.ISSUERS).read_bytes())
    slices = [set(profiles.permitted(issuer) or ()) for issuer in issuers]
    assert sum(map(len, slices)) == len(MANY)
    assert set().union(*slices) == set(MANY) == set(authority.permitted)
    assert len({issuer.subject for issuer in issuers}) == len(issuers) > 1
    assert max(len(issuer.public_bytes(Encoding.DER)) for issuer in issuers) < 1700, "each handshake carries one"
    for name in MANY:
        assert name in (profiles.permitted(authority.issuer(name)) or ())


def test_a_fingerprint_is_as_openssl_shows_it(authority: Authority) -> None:
    expected = authority.certificate.fingerprint(SHA256()).hex().upper()
    assert authority.fingerprint == fingerprint(authority.certificate)
    assert authority.fingerprint.replace(":", "") == expected
    assert authority.fingerprint.count(":") == 31


@pytest.mark.parametrize("name", ["quay.io", "QUAY.IO.", "cdn01.quay.io", "*.quay.io", "eu.gcr.io"])
def test_what_it_permits(authority: Authority, name: str) -> None:
    assert authority.permits(name)


@pytest.mark.parametrize(
    "name", ["example.com", "evilquay.io", "io", "*.io", "", "127.0.0.1", "quay.io/x", "a*.quay.io"]
)
def test_what_it_does_not_permit(authority: Authority, name: str) -> None:
    assert not authority.permits(name)


def test_rule_12_it_says_which_names_are_missing(authority: Authority) -> None:
    assert authority.missing(["quay.io", "ghcr.io", "*.gcr.io", "*.azurecr.io", "10.0.0.5"]) == [
        "ghcr.io",
        "*.azurecr.io",
        "10.0.0.5",
    ]


def test_there_is_no_issuer_for_other_names(authority: Authority) -> None:
    with pytest.raises(NameNotPermitted, match=r"'ghcr\.io'.*ca rotate"):
        authority.issuer("ghcr.io")


def test_the_key_shows_nowhere(authority: Authority) -> None:
    assert "rivate" not in repr(authority)


@pytest.mark.parametrize("subtrees", [[], ["box", "10.0.0.5", "*.com"]])
def test_rule_12_it_is_not_made_for_no_names(directory: Path, subtrees: list[str]) -> None:
    with pytest.raises(InvalidSubtree, match="at least one host name"):
        Authority.create(directory, subtrees, now=NOW)
    assert not directory.exists()


def test_names_that_no_ca_can_have_are_left_out(directory: Path) -> None:
    authority = Authority.create(directory, ["quay.io", "box", "10.0.0.5"], now=NOW)
    assert authority.permitted == ("quay.io",)
    assert authority.missing(["box", "10.0.0.5"]) == ["box", "10.0.0.5"]


def test_one_is_not_made_over_another(authority: Authority) -> None:
    with pytest.raises(AuthorityExists, match="holds a CA already"):
        Authority.create(authority.directory, SUBTREES, now=NOW)
    assert Authority.load(authority.directory).certificate == authority.certificate


def test_no_ca_is_an_error_of_its_own(directory: Path) -> None:
    with pytest.raises(NoAuthority, match="there is no CA in"):
        Authority.load(directory)


def test_ensure_makes_one_and_then_keeps_it(directory: Path) -> None:
    first = Authority.ensure(directory, SUBTREES, NOW)
    second = Authority.ensure(directory, ["example.com"], NOW)
    assert first.certificate == second.certificate


def test_a_crash_before_the_end_of_creation_is_no_obstacle(directory: Path) -> None:
    with files.locked(directory):
        files.add_generation(directory, "0badcafe", b"half", b"", b"")
    assert Authority.ensure(directory, SUBTREES, NOW).permits("quay.io")


def test_threads_that_start_at_once_get_one_ca(directory: Path) -> None:
    barrier, found = threading.Barrier(6), []

    def start() -> None:
        barrier.wait(10)
        found.append(Authority.ensure(directory, SUBTREES, NOW).fingerprint)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1
    assert len([path for path in directory.iterdir() if not path.is_symlink()]) == 1


def test_processes_that_start_at_once_get_one_ca(directory: Path) -> None:
    program = (
        "import sys, datetime, pathlib; from entrepot.certs.authority import Authority; "
        "print('ready', flush=True); sys.stdin.readline(); "
        "print(Authority.ensure(pathlib.Path(sys.argv[1]), ['quay.io'], "
        "datetime.datetime.now(datetime.UTC)).fingerprint)"
    )
    command = [sys.executable, "-c", program, str(directory)]
    processes = [subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0] for process in processes]
    assert len(set(answers)) == 1
    assert answers[0].count(":") == 31


@pytest.mark.parametrize("file", [files.ROOT, files.ISSUERS, files.KEY])
@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\x00"]
)
def test_a_file_that_is_broken_is_said(authority: Authority, file: str, content: bytes) -> None:
    (folder(authority.directory) / file).write_bytes(content)
    with pytest.raises(AuthorityError, match=rf"{file} holds no .*restore it"):
        Authority.load(authority.directory)


@pytest.mark.parametrize("file", [files.ROOT, files.ISSUERS, files.KEY])
def test_a_file_that_is_gone_is_said(authority: Authority, file: str) -> None:
    (folder(authority.directory) / file).unlink()
    with pytest.raises(AuthorityError, match=f"{file}: No such file"):
        Authority.load(authority.directory)


def test_rule_12_a_key_that_others_can_read_is_refused(authority: Authority) -> None:
    (folder(authority.directory) / files.KEY).chmod(0o644)
    with pytest.raises(AuthorityError, match="can be read by others"):
        Authority.load(authority.directory)


def test_a_key_that_is_not_the_issuers_is_refused(authority: Authority) -> None:
    (folder(authority.directory) / files.KEY).write_bytes(profiles.key_pem(profiles.new_key()))
    with pytest.raises(AuthorityError, match=r"is not the key of issuers\.crt"):
        Authority.load(authority.directory)


def test_another_kind_of_key_is_refused(authority: Authority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder(authority.directory) / files.KEY).write_bytes(pem)
    with pytest.raises(AuthorityError, match="holds no EC key"):
        Authority.load(authority.directory)


def test_issuers_of_another_root_are_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", SUBTREES, now=NOW)
    (folder(authority.directory) / files.ROOT).write_bytes(other.pem)
    with pytest.raises(AuthorityError, match=r"was not issued by ca\.crt"):
        Authority.load(authority.directory)


def test_rule_12_an_issuer_that_can_sign_for_anything_is_refused(authority: Authority) -> None:
    """As a company's CA would make it that was asked for "an intermediate"."""
    path = folder(authority.directory)
    key, root_key = profiles.new_key(), profiles.new_key()
    model = profiles.root(root_key.public_key(), profiles.constraints(["quay.io"]), NOW, NOW + timedelta(days=9))
    free = x509.CertificateBuilder(
        model._issuer_name, model._issuer_name, key.public_key(), 1, NOW, NOW + timedelta(days=9)
    )
    (path / files.ROOT).write_bytes(profiles.pem(model.sign(root_key, SHA256())))
    (path / files.ISSUERS).write_bytes(profiles.pem(free.sign(root_key, SHA256())))
    (path / files.KEY).write_bytes(profiles.key_pem(key))
    with pytest.raises(AuthorityError, match="it could sign for any name"):
        Authority.load(authority.directory)


def test_it_signs_with_the_issuers_key(authority: Authority) -> None:
    issuer = authority.issuer("quay.io")
    key = profiles.new_key().public_key()
    signed = authority.sign(profiles.leaf("quay.io", key, issuer, NOW, NOW + timedelta(days=1)))
    signed.verify_directly_issued_by(issuer)
    with pytest.raises((InvalidSignature, ValueError)):
        signed.verify_directly_issued_by(authority.certificate)
