"""The CA in its forms, and the script, run by the shells of Debian (dash) and Alpine (busybox)."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7
from tests.web.conftest import Open

from entrepot.certs import rotation
from entrepot.certs.authority import fingerprint
from entrepot.certs.rotation import published
from entrepot.certs.stores import STORES, file_name
from entrepot.web import onboarding
from entrepot.web.settings import WebSettings

SHELLS = (("dash",), ("busybox", "sh"), ("bash", "--posix"))


async def test_the_ca_in_its_forms(open_page: Open, settings: WebSettings) -> None:
    client = await open_page()
    ca = published(settings.certs).current
    pem = await client.get("/ca.crt")
    assert pem.headers["Content-Type"] == "application/x-pem-file"
    assert pem.headers["Content-Disposition"] == 'attachment; filename="entrepot-ca.crt"'
    assert x509.load_pem_x509_certificate(await pem.read()) == ca
    assert x509.load_der_x509_certificate(await (await client.get("/ca.der")).read()) == ca
    assert pkcs7.load_der_pkcs7_certificates(await (await client.get("/ca.p7b")).read()) == [ca]


async def test_both_are_given_out_during_a_rotation(open_page: Open, settings: WebSettings) -> None:
    found = rotation.begin(settings.certs, ["quay.io"], now=datetime.now(UTC))
    client = await open_page()
    pem = await (await client.get("/ca.crt")).read()
    assert x509.load_pem_x509_certificates(pem) == list(found.trusted)
    p7b = await (await client.get("/ca.p7b")).read()
    assert set(pkcs7.load_der_pkcs7_certificates(p7b)) == set(found.trusted)
    text = await (await client.get("/install.sh")).text()
    page = await (await client.get("/")).text()
    for one in found.trusted:
        assert fingerprint(one) in text
        assert fingerprint(one) in page


async def test_no_key_ever_crosses(open_page: Open, settings: WebSettings) -> None:
    """Rule 12."""
    client = await open_page()
    key = (settings.certs / "current/issuers.key").read_text().splitlines()[1]
    for path in ("/", "/images", "/metrics", "/install.sh", "/ca.crt", "/ca.der", "/ca.p7b"):
        content = await (await client.get(path)).read()
        assert b"PRIVATE KEY" not in content
        assert key.encode() not in content
    for path in ("/issuers.key", "/../current/issuers.key", "/ca/current/issuers.key", "/%2e%2e/issuers.key"):
        assert (await client.get(path)).status == 404


async def test_without_a_ca(open_page: Open, tmp_path: Path) -> None:
    client = await open_page(certs=tmp_path / "nothing")
    assert (await client.get("/ca.crt")).status == 503
    assert (await client.get("/install.sh")).status == 503
    assert "There is no CA yet." in await (await client.get("/")).text()


async def test_the_name_that_the_client_used_is_in_the_script(open_page: Open) -> None:
    client = await open_page()
    answer = await client.get("/install.sh", headers={"Host": "box.example:8080"})
    assert answer.headers["Content-Type"] == "text/x-shellscript; charset=utf-8"
    assert "CA of box.example:8080'" in await answer.text()


def test_what_is_no_name_does_not_get_into_the_script(settings: WebSettings) -> None:
    text = onboarding.script(published(settings.certs), "x'; rm -rf /; '").content.decode()
    assert "rm -rf" not in text
    assert "THIS-BOX" in text


# The script, at work on a folder


@dataclass(frozen=True)
class Machine:
    """A folder with the files of a system, and the script."""

    root: Path
    script: str
    shell: tuple[str, ...]

    def run(self, *options: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
        """As from `curl | sh -s -- options`, with no terminal."""
        return subprocess.run(
            [*self.shell, "-s", "--", "--root", str(self.root), *options],
            input=self.script if script is None else script,
            capture_output=True,
            text=True,
            timeout=30,
            start_new_session=True,
            check=False,
        )

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def machine(request: pytest.FixtureRequest, tmp_path: Path, settings: WebSettings) -> Machine:
    if shutil.which(request.param[0]) is None:
        pytest.skip(f"no {request.param[0]}")
    root = tmp_path / "a root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text('PRETTY_NAME="Debian"\nID=debian\n')
    script = onboarding.script(published(settings.certs), "10.0.0.5:8080").content.decode()
    return Machine(root, script, request.param)


def test_in_and_out_again(machine: Machine, settings: WebSettings) -> None:
    ca = published(settings.certs).current
    before = machine.files()
    done = machine.run("--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert fingerprint(ca) in done.stdout
    assert "update-ca-certificates" in done.stdout
    assert "restart those of dockerd, containerd" in done.stdout
    (name,) = set(machine.files()) - set(before)
    assert name == f"usr/local/share/ca-certificates/{file_name(ca)}.crt"
    file = machine.root / name
    assert x509.load_pem_x509_certificate(file.read_bytes()) == ca
    assert file.stat().st_mode & 0o777 == 0o644
    again = machine.run("--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to do: the CA is in the store\n")
    out = machine.run("--undo")
    assert (out.returncode, out.stderr) == (0, "")
    assert machine.files() == before
    assert machine.run("--undo").stdout == "nothing to do: the CA is not in the store\n"


def test_the_links_of_the_system_to_it_go_as_well(machine: Machine, settings: WebSettings) -> None:
    name = file_name(published(settings.certs).current)
    machine.run("--yes")
    links = machine.root / "etc/ssl/certs"
    links.mkdir(parents=True)
    (links / "other.pem").write_text("x")
    for link, target in {
        f"{name}.pem": f"/usr/local/share/ca-certificates/{name}.crt",
        "1234abcd.0": f"{name}.pem",
        "1234abcd.1": "other.pem",
        "99999999.0": "gone.pem",
    }.items():
        (links / link).symlink_to(target)
    assert machine.run("--undo", "--dry-run").returncode == 0
    assert (links / "1234abcd.0").is_symlink()
    assert machine.run("--undo").returncode == 0
    assert sorted(path.name for path in links.iterdir()) == ["1234abcd.1", "99999999.0", "other.pem"]


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    before = machine.files()
    done = machine.run("--dry-run")
    assert done.returncode == 0
    assert "write " in done.stdout
    assert machine.files() == before
    machine.run("--yes")
    there = machine.files()
    assert "remove " in machine.run("--dry-run", "--undo").stdout
    assert machine.files() == there


def test_without_anybody_to_ask_nothing_is_done(machine: Machine) -> None:
    before = machine.files()
    done = machine.run()
    assert done.returncode == 1
    assert "nobody to ask: add --yes" in done.stderr
    assert machine.files() == before


TERMINAL = """
import os, pty, sys
answer, *command = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", 'script=$1; shift; cat "$script" | "$@"', "sh", *command])
said = b""
while b"Trust it? [y/N] " not in said:
    said += os.read(terminal, 1024)
os.write(terminal, answer.encode() + b"\\n")
try:
    while more := os.read(terminal, 1024):
        said += more
except OSError:
    pass
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(("answer", "trusted"), [("y", True), ("YES", True), ("n", False), ("", False), ("yep", False)])
def test_somebody_at_a_terminal_is_asked(machine: Machine, tmp_path: Path, answer: str, trusted: bool) -> None:
    """While the script comes through standard input."""
    (tmp_path / "script").write_text(machine.script)
    command = [*machine.shell, "-s", "--", "--root", str(machine.root)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", TERMINAL, answer, str(tmp_path / "script"), *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert bool(list(machine.root.rglob("entrepot-*.crt"))) is trusted, done
    assert done.returncode == (0 if trusted else 1)
    assert ("nothing was changed" in done.stdout) is not trusted


def test_a_file_that_is_not_as_it_should_be_is_written_anew(machine: Machine) -> None:
    machine.run("--yes")
    (file,) = machine.root.rglob("entrepot-*.crt")
    right = file.read_bytes()
    file.write_bytes(right[:100])
    assert machine.run("--yes").returncode == 0
    assert file.read_bytes() == right


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.kind)
def test_each_system_has_its_store(machine: Machine, store: object, tmp_path: Path) -> None:
    chosen = next(one for one in STORES if one is store)
    for system in chosen.systems:
        (machine.root / "etc/os-release").write_text(f'ID="new-{system}"\nID_LIKE="unknown {system}"\n')
        done = machine.run("--yes")
        assert done.returncode == 0, done.stderr
        assert " ".join(chosen.command) in done.stdout
        (file,) = machine.root.rglob("entrepot-*.crt")
        assert f"/{file.parent.relative_to(machine.root)}" == chosen.anchors
        machine.run("--undo")


def test_an_unknown_system(machine: Machine) -> None:
    (machine.root / "etc/os-release").write_text("ID=plan9\n")
    done = machine.run("--yes")
    assert done.returncode == 1
    assert "this system is not known; put http://10.0.0.5:8080/ca.crt into" in done.stderr
    (machine.root / "etc/os-release").unlink()
    assert machine.run("--yes").returncode == 1


def test_half_a_script_does_nothing(machine: Machine) -> None:
    """The connection breaks while it comes: at no place may what is there do half of the work."""
    before = machine.files()
    for at in range(0, len(machine.script) - 2, 97):
        machine.run("--yes", script=machine.script[:at])
        assert machine.files() == before, machine.script[:at][-80:]


def test_other_options_are_a_mistake(machine: Machine, tmp_path: Path) -> None:
    assert machine.run("--hurry").returncode == 2
    assert machine.run("--root").returncode == 1
    assert machine.run("--root", str(tmp_path / "nothing")).returncode == 1


def test_the_old_one_is_taken_out_too(machine: Machine, settings: WebSettings) -> None:
    machine.run("--yes")
    rotation.begin(settings.certs, ["quay.io"], now=datetime.now(UTC))
    later = onboarding.script(published(settings.certs), "10.0.0.5").content.decode()
    assert machine.run("--yes", script=later).returncode == 0
    assert len(list(machine.root.rglob("entrepot-*.crt"))) == 2
    rotation.finish(settings.certs)
    last = onboarding.script(published(settings.certs), "10.0.0.5").content.decode()
    assert machine.run("--undo", script=last).returncode == 0
    assert not list(machine.root.rglob("entrepot-*.crt"))
