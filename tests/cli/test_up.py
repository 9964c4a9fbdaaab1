"""The whole thing: `entrepot up` as somebody would start it, on ports of its own."""

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrepot.certs.authority import Authority
from entrepot.cli import up
from entrepot.cli.brief import Brief, leaves, reload_line
from entrepot.cli.processes import Role
from entrepot.cli.up import Box, NothingToServe, changed, command, in_force
from entrepot.config import Config, ConfigError, Listen, Store, Upstream
from entrepot.errors import EntrepotError

PROGRAM = "import sys; from entrepot.cli.main import main; sys.argv[0] = 'entrepot'; main()"


def free_ports() -> tuple[int, int, int]:
    """Some that are free over TCP and UDP on 127.0.0.1; somebody may take them meanwhile, which is rare."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.1", 0)) as third,
    ):
        return one.getsockname()[1], other.getsockname()[1], third.getsockname()[1]


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"


class Running:
    """A started `entrepot up`."""

    def __init__(self, folder: Path, extra: str = "", environ: dict[str, str] | None = None) -> None:
        self.https, self.dns, self.web = free_ports()
        self.folder = folder
        self.config = folder / "entrepot.toml"
        self.write(extra)
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, "up", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environ or {})},
        )

    def write(self, extra: str = "", workers: int = 1) -> None:
        self.config.write_text(
            f'[listen]\naddress = ["127.0.0.1"]\nhttps = {self.https}\ndns = {self.dns}\n'
            f"web = {self.web}\nworkers = {workers}\n"
            f'[certs]\npath = "ca"\n[store]\npath = "store"\n[dns]\nupstream = ["127.0.0.1:9"]\n{extra}'
        )

    def read_until(self, *texts: str) -> str:
        """What is printed from now on until all of `texts` are."""
        assert self.process.stdout is not None
        news = ""
        while not all(text in news for text in texts):
            line = self.process.stdout.readline()
            assert line, f"it ended without {texts}:\n{self.output}"
            news += line
            self.output += line
        return news

    def children(self) -> dict[str, int]:
        """Pids by role."""
        found = {}
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in map(int, path.read_text().split()):
            found[Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()] = pid
        return found

    def handshake(self, name: str = "quay.io") -> str:
        """The issuer's words for who signed; waits as long as a client would."""
        context = ssl.create_default_context(cafile=self.folder / "ca/current/ca.crt")
        with (
            socket.create_connection(("127.0.0.1", self.https), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            return tls.version() or ""

    def ask(self, name: str = "quay.io") -> bytes:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(30)
            sock.sendto(query(name), ("127.0.0.1", self.dns))
            return sock.recv(4096)

    def get(self, path: str) -> str:
        """A page; waits as long as a client would, for a process that has to come first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        self.output += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@contextmanager
def running(folder: Path, extra: str = "", environ: dict[str, str] | None = None) -> Iterator[Running]:
    made = Running(folder, extra, environ)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("box")) as made:
        made.read_until("on a client")
        made.get("/style.css")  # the page comes when all else serves
        yield made


OURS = socket.inet_aton("127.0.0.1")


def test_it_says_what_is_served(box: Running) -> None:
    assert f"serving https  127.0.0.1:{box.https} (1 worker)" in box.output
    assert f"serving dns    127.0.0.1:{box.dns} (udp and tcp)" in box.output
    assert f"ca             {box.folder}/ca/current/ca.crt" in box.output
    assert f"store          {box.folder}/store" in box.output
    assert f"serving web    127.0.0.1:{box.web}: page" in box.output
    assert f"curl -fsS http://127.0.0.1:{box.web}/install.sh | sh" in box.output
    assert "3128" not in box.output
    assert "Traceback" not in box.output


def test_it_serves(box: Running) -> None:
    assert box.handshake().startswith("TLS")
    assert box.ask().endswith(OURS)


def test_a_process_that_dies_is_missed_by_nobody(box: Running) -> None:
    before = box.children()
    assert set(before) == {"proxy", "fetch", "dns", "web"}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    assert box.handshake().startswith("TLS")
    assert box.ask().endswith(OURS)
    box.read_until(*(f"{role}-0 (pid {pid}) was killed by SIGKILL" for role, pid in before.items()))
    assert not set(before.values()) & set(box.children().values())


def test_the_page_and_the_metrics(box: Running) -> None:
    assert "All is well" in box.get("/")
    metrics = box.get("/metrics")
    assert 'entrepot_certificate_expiry_timestamp_seconds{certificate="leaf"}' in metrics
    assert 'entrepot_readable{part="disk"} 1' in metrics
    script = box.get("/install.sh")
    assert f"http://127.0.0.1:{box.web}/ca.crt" in script
    assert box.get("/ca.crt") == (box.folder / "ca/current/ca.crt").read_text()


def test_counters_go_on_over_the_death_of_a_process(box: Running) -> None:
    name = 'entrepot_dns_queries_total{answer="intercepted"} '

    def counted() -> int:
        return int(box.get("/metrics").partition(name)[2].split()[0])

    def until(enough: Callable[[int], bool]) -> list[int]:
        """All that is seen on the way there."""
        found: list[int] = []
        for _ in range(300):
            found.append(counted())
            if enough(found[-1]):
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    for _ in range(5):
        box.ask()
    before = until(lambda seen: seen >= 5)[-1]  # written every second
    pid = box.children()["dns"]
    os.kill(pid, signal.SIGKILL)
    box.read_until(f"dns-0 (pid {pid}) was killed by SIGKILL")
    box.ask()
    seen = [before, *until(lambda now: now > before)]
    assert seen == sorted(seen)
    restarts = box.get("/metrics").partition('entrepot_process_restarts_total{role="dns"} ')[2].split()[0]
    assert int(restarts) >= 1


def test_without_the_port_of_the_page_all_else_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(tmp_path, environ={"ENTREPOT_LISTEN_WEB": str(port)}) as made:
            made.read_until("on a client")
            assert set(made.children()) == {"proxy", "fetch", "dns"}
            assert made.handshake().startswith("TLS")
            assert made.output.count(f"no web page and no metrics: port {port} (web) is in use by") == 1
            assert "serving web" not in made.output


def test_without_a_page(tmp_path: Path) -> None:
    with made(tmp_path, ENTREPOT_LISTEN_WEB="0") as box:
        assert "web-0" not in [str(role) for role in box.roles()]


def test_a_reload(box: Running) -> None:
    before = box.children()
    box.write('[policy]\ntag_tll = "1s"\n')
    box.process.send_signal(signal.SIGHUP)
    assert f"configuration not reloaded: {box.config}:14: policy.tag_tll: unknown key" in box.read_until("not reloaded")
    box.write('[policy]\ntag_ttl = "1s"\n[log]\nlevel = "debug"\n', workers=3)
    box.process.send_signal(signal.SIGHUP)
    box.read_until("supervisor: configuration read again")
    assert "a restart is needed for the changes of listen.workers, log.level" in box.output
    assert box.children() == before
    assert box.handshake().startswith("TLS")


def test_a_second_one_on_the_same_ports_says_who_is_first(box: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", PROGRAM, "up", "--config", str(box.config)]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"entrepot: port {box.https} (https) is in use by python")
    assert f"(pid {box.process.pid}), on 127.0.0.1:{box.https}: stop it" in line


def test_stopping_is_clean(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/n")
        manager.settimeout(30)
        with running(tmp_path, environ={"NOTIFY_SOCKET": f"{tmp_path}/n"}) as made:
            made.read_until("on a client")
            made.get("/style.css")
            assert manager.recv(4096).startswith(b"READY=1\n")
            pids = made.children().values()
            assert made.stop() == 0
            assert manager.recv(4096) == b"STOPPING=1"
            assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
            assert "SIGTERM: stopping" in made.output
            with pytest.raises(ConnectionRefusedError):
                made.handshake()


def test_no_orphans_whatever_happens_to_the_supervisor(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        made.read_until("on a client")
        made.get("/style.css")
        handles = [os.pidfd_open(pid) for pid in made.children().values()]
        made.process.kill()
        for handle in handles:
            assert select.select([handle], [], [], 30)[0]
            os.close(handle)


def test_a_key_open_to_everyone_stops_the_start(tmp_path: Path) -> None:
    Authority.create(tmp_path / "ca", ["quay.io"], now=datetime.now(UTC))
    (tmp_path / "ca/current/issuers.key").chmod(0o644)
    with running(tmp_path) as made:
        assert made.process.wait(30) == 1
        made.stop()
        assert "can be read by others than its owner" in made.output
        assert "Traceback" not in made.output


def test_json_lines(tmp_path: Path) -> None:
    with running(tmp_path, '[log]\nformat = "json"\n') as made:
        made.read_until("on a client")
        made.stop()
    assert all(line.startswith("{") for line in made.output.splitlines())


# What needs no process


@contextmanager
def made(folder: Path, extra: str = "", **environ: str) -> Iterator[Box]:
    https, dns, web = free_ports()
    file = folder / "entrepot.toml"
    file.write_text(
        f'[listen]\naddress = ["127.0.0.1"]\nhttps = {https}\ndns = {dns}\nweb = {web}\nworkers = 2\n'
        f'[certs]\npath = "ca"\n[store]\npath = "store"\n{extra}'
    )
    box = Box(file, environ)
    try:
        yield box
    finally:
        box.stopping()


def test_every_process_gets_the_sockets_of_its_own(tmp_path: Path) -> None:
    with made(tmp_path) as box:
        roles = box.roles()
        assert [str(role) for role in roles] == ["proxy-0", "proxy-1", "fetch-0", "dns-0", "web-0"]
        assert len({fd for role in roles for fd in role.sockets}) == 5
        assert [role.vital for role in roles] == [True, True, True, True, False]
        brief = Brief.from_line(box.brief(roles[1]))
        assert brief.index == 1
        assert brief.sockets == roles[1].sockets
        assert brief.probe == ("127.0.0.1", box.config.listen.https)
        assert brief.config == box.config
        assert brief.marker.startswith("entrepot-")


def test_without_https_there_is_no_worker_and_no_probe(tmp_path: Path) -> None:
    with made(tmp_path, ENTREPOT_LISTEN_HTTPS="0") as box:
        role, page = box.roles()
        assert role.name == "dns"
        assert page.name == "web"
        assert Brief.from_line(box.brief(role)).probe is None


@pytest.mark.parametrize(
    ("changed", "seconds"),
    [
        ({}, 1.0),
        ({"ENTREPOT_DNS_DRAIN": "30s"}, 30.0),
        ({"ENTREPOT_DNS_FAIL_OPEN": "false"}, 0.0),
        ({"ENTREPOT_LISTEN_DNS": "0"}, 0.0),
        ({"ENTREPOT_LISTEN_HTTPS": "0"}, 0.0),
    ],
)
def test_how_long_dns_steps_aside_before_a_stop(tmp_path: Path, changed: dict[str, str], seconds: float) -> None:
    """Where that helps nobody, not at all."""
    with made(tmp_path, **changed) as box:
        line, until = box.leaving()
        assert leaves(line)
        assert not leaves(reload_line({}))
        assert until == seconds


def test_nothing_to_serve(tmp_path: Path) -> None:
    with (
        pytest.raises(NothingToServe, match=r"listen\.https and listen\.dns are both 0"),
        made(tmp_path, ENTREPOT_LISTEN_HTTPS="0", ENTREPOT_LISTEN_DNS="0"),
    ):
        pass


def test_counters_of_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    old = tmp_path / "store/run/proxy-7.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    with made(tmp_path):
        assert not old.exists()


def test_the_ca_is_made_once(tmp_path: Path) -> None:
    with made(tmp_path) as box:
        box.ensure_authority()
        first = (tmp_path / "ca/current").readlink()
        box.ensure_authority()
        assert (tmp_path / "ca/current").readlink() == first


def test_a_mistake_in_the_registries_is_told_before_the_ca_is_made(tmp_path: Path) -> None:
    with (
        made(tmp_path, '[registries."registry.example"]\nhosts = ["quay.io"]\n') as box,
        pytest.raises(EntrepotError, match="claimed by"),
    ):
        box.ensure_authority()
    assert list((tmp_path / "ca").iterdir()) == []


def test_a_reload_keeps_what_needs_a_restart(tmp_path: Path) -> None:
    with made(tmp_path) as box:
        before = box.config
        box._path = tmp_path / "other.toml"
        assert box.reload() is None
        assert box.config == before
        box._path.write_text('[policy]\ntag_ttl = "1s"\n[store]\npath = "elsewhere"\n')
        assert box.reload() is not None
        assert box.config.policy.tag_ttl == 1.0
        assert box.config.store == before.store
        assert box.config.listen == before.listen


def test_what_needs_a_restart_is_named() -> None:
    other = Config(listen=Listen(https=1, workers=2), store=Store(path=Path("/x")))
    assert changed(Config(), other) == ["listen.https", "listen.workers", "store.path"]
    assert changed(Config(), Config()) == []


def test_the_bandwidth_is_taken_anew_without_a_restart() -> None:
    fresh = Config(upstream=Upstream(read_timeout=9.0, bandwidth=1000))
    assert changed(Config(), fresh) == ["upstream.read_timeout"]
    assert in_force("upstream", Config(), fresh) == Upstream(bandwidth=1000)
    assert in_force("store", Config(), Config(store=Store(path=Path("/x")))) == Store()


def test_a_bad_configuration_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), made(tmp_path, "[dns]\ntll = 1\n"):
        pass


def test_children_do_not_import_from_the_current_folder() -> None:
    assert command(Role("dns", 0))[1:] == ["-P", "-m", "entrepot.cli.children", "dns"]


def test_every_section_that_needs_a_restart_is_one() -> None:
    for section in up.RESTART:
        assert hasattr(Config(), section)
