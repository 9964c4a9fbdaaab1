"""Drivers for the real clients. Each keeps its images in its machine's tmpfs, apart from the host's and each other's.

What a client holds after a pull is told in its own words (`Held`): from its inspect command, or, where it has none,
from hashing the files it wrote.
"""

import base64
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.lab import world
from tests.lab.images import ARCHITECTURE, Image, digest_of_file
from tests.lab.net import HOME, CommandFailed, Daemon, Machine, wait_for

type Credentials = tuple[str, str] | None

LOGIN: Credentials = (world.USER, world.PASSWORD)

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


@dataclass(frozen=True, slots=True)
class Held:
    """Digest of the config, and of the layers in order: either of the blobs or of the tars inside them (diff ids)."""

    config: str
    layers: tuple[str, ...]

    def is_same_as(self, image: Image) -> bool:
        return self.config == image.config.digest and self.layers in (image.layer_digests, image.diff_ids)


class Client(Protocol):
    """A kind of client on one machine."""

    name: str
    machine: Machine

    def pull(self, image: str, login: Credentials = None) -> None:
        """Pull, or raise `CommandFailed` with what the client said."""

    def held(self, image: str) -> Held:
        """What was pulled."""

    def forget(self) -> None:
        """Remove every image and all its content, so that the next pull fetches everything."""


def _colon(login: Credentials) -> str:
    assert login is not None
    return ":".join(login)


class Docker:
    """dockerd with the classic graph driver; its own daemon, started on first use."""

    name = "docker"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._daemon: Daemon | None = None
        self._root = HOME / "docker"
        self._socket = f"unix://{self._root}/docker.sock"

    def _docker(self, *argv: str, config: str = "none") -> str:
        if self._daemon is None or not self._daemon.running:
            self._start()
        return self.machine.run("docker", "-H", self._socket, "--config", str(self._root / config), *argv)

    def _start(self) -> None:
        root, machine = self._root, self.machine
        machine.path(root).mkdir(parents=True, exist_ok=True)
        settings = {"features": {"containerd-snapshotter": False}, "storage-driver": "vfs"}
        machine.path(root / "daemon.json").write_text(json.dumps(settings))
        places = [f"--data-root={root}/data", f"--exec-root={root}/exec", f"--pidfile={root}/pid", f"-H={self._socket}"]
        network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        self._daemon = machine.spawn("dockerd", "dockerd", f"--config-file={root}/daemon.json", *places, *network)
        wait_for(self._ready, "dockerd")

    def _ready(self) -> bool:
        assert self._daemon is not None
        if not self._daemon.running:
            raise CommandFailed(["dockerd"], self._daemon.wait(1), self._daemon.output()[-4000:])
        try:
            self.machine.run("docker", "-H", self._socket, "version")
        except CommandFailed:
            return False
        return True

    def _login(self, login: Credentials, image: str) -> str:
        """Name of a configuration folder that holds the login for the image's registry."""
        if login is None:
            return "none"
        server = image.partition("/")[0]
        key = "https://index.docker.io/v1/" if server == "docker.io" else server
        folder = self.machine.path(self._root / "login")
        folder.mkdir(parents=True, exist_ok=True)
        auth = base64.b64encode(_colon(login).encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {key: {"auth": auth}}}))
        return "login"

    def pull(self, image: str, login: Credentials = None) -> None:
        self._docker("pull", image, config=self._login(login, image))

    def push(self, archive: str, loaded_as: str, image: str, login: Credentials) -> None:
        """Load a docker-archive (a path in the machine) and push what it holds as `image`."""
        self._docker("load", "--input", archive)
        self._docker("tag", loaded_as, image)
        self._docker("push", image, config=self._login(login, image))

    def held(self, image: str) -> Held:
        found = json.loads(self._docker("image", "inspect", image))[0]
        return Held(found["Id"], tuple(found["RootFS"]["Layers"]))

    def forget(self) -> None:
        self._docker("image", "prune", "--all", "--force")


class Containerd:
    """containerd through `ctr`: the resolver and fetcher that Kubernetes nodes use."""

    name = "containerd"
    namespace = "default"
    disabled: tuple[str, ...] = ("io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._daemon: Daemon | None = None
        self._root = HOME / self.name

    def _ctr(self, *argv: str) -> str:
        if self._daemon is None:
            self._start()
        return self.machine.run("ctr", "--address", f"{self._root}/sock", "--namespace", self.namespace, *argv)

    def _start(self) -> None:
        root = self._root
        self.machine.path(root).mkdir(parents=True, exist_ok=True)
        config = [
            "version = 2",
            f'root = "{root}/data"',
            f'state = "{root}/state"',
            f"disabled_plugins = {json.dumps(self.disabled)}",
            '[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"',
            f'[grpc]\naddress = "{root}/sock"',
            f'[ttrpc]\naddress = "{root}/ttrpc"',
        ]
        self.machine.path(root / "config.toml").write_text("\n".join(config) + "\n")
        self._daemon = self.machine.spawn("containerd", "containerd", "--config", f"{root}/config.toml")
        wait_for(self._answers, "containerd")

    def _answers(self) -> bool:
        try:
            self.machine.run("ctr", "--address", f"{self._root}/sock", "version")
        except CommandFailed:
            return False
        return True

    def pull(self, image: str, login: Credentials = None) -> None:
        user = ["--user", _colon(login)] if login else []
        self._ctr("images", "pull", "--snapshotter", "native", *user, image)

    def held(self, image: str) -> Held:
        listing = self._ctr("images", "ls", f"name=={image}").splitlines()[1]
        manifest = self._json(next(word for word in listing.split() if word.startswith("sha256:")))
        if "manifests" in manifest:
            ours = [m for m in manifest["manifests"] if m["platform"]["architecture"] == ARCHITECTURE]
            manifest = self._json(ours[0]["digest"])
        layers = (digest_of_file(self._blob(each["digest"])) for each in manifest["layers"])
        return Held(manifest["config"]["digest"], tuple(layers))

    def _blob(self, digest: str) -> Path:
        store = self._root / "data/io.containerd.content.v1.content/blobs"
        return self.machine.path(store / digest.replace(":", "/"))

    def _json(self, digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._blob(digest).read_bytes())
        return found

    def forget(self) -> None:
        for image in self._ctr("images", "ls", "--quiet").split():
            self._ctr("images", "rm", "--sync", image)
        self._ctr("content", "prune", "references")


class Kubelet(Containerd):
    """containerd asked as kubelet asks it, over the CRI."""

    name = "cri"
    namespace = "k8s.io"
    disabled = ("io.containerd.internal.v1.opt",)

    def _cri(self, *argv: str) -> None:
        if self._daemon is None:
            self._start()
        self.machine.run("/usr/bin/python3", str(Path(__file__).with_name("cri.py")), f"{self._root}/sock", *argv)

    def pull(self, image: str, login: Credentials = None) -> None:
        self._cri("pull", image, *(login or ()))


class Podman:
    """podman, with no daemon."""

    name = "podman"
    command: tuple[str, ...] = ("podman", "--events-backend=none", "--cgroup-manager=cgroupfs")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        root = HOME / self.name
        self._storage = (f"--root={root}/data", f"--runroot={root}/run", "--storage-driver=vfs")

    def _run(self, *argv: str) -> str:
        return self.machine.run(*self.command, *self._storage, *argv)

    def pull(self, image: str, login: Credentials = None) -> None:
        self._run("pull", *(["--creds", _colon(login)] if login else []), image)

    def held(self, image: str) -> Held:
        found = json.loads(self._run("image", "inspect", image))[0]
        return Held(f"sha256:{found['Id']}", tuple(found["RootFS"]["Layers"]))

    def forget(self) -> None:
        self._run("rmi", "--all", "--force")


class Buildah(Podman):
    """buildah; the same library as podman's, another program with another way of pulling."""

    name = "buildah"
    command = ("buildah",)

    def held(self, image: str) -> Held:
        found = json.loads(self._run("inspect", "--type", "image", image))
        return Held(f"sha256:{found['FromImageID']}", tuple(found["OCIv1"]["rootfs"]["diff_ids"]))


class Skopeo:
    """skopeo, copying into a folder: what arrived is hashed, nothing is taken on trust."""

    name = "skopeo"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._folder = HOME / "skopeo"

    def pull(self, image: str, login: Credentials = None) -> None:
        creds = ["--src-creds", _colon(login)] if login else []
        self.machine.run("skopeo", "copy", *creds, f"docker://{image}", f"dir:{self._folder}")

    def push(self, archive: str, image: str, login: Credentials) -> None:
        """Push what a docker-archive (a path in the machine) holds."""
        creds = ["--dest-creds", _colon(login)] if login else []
        self.machine.run("skopeo", "copy", *creds, f"docker-archive:{archive}", f"docker://{image}")

    def held(self, image: str) -> Held:
        folder = self.machine.path(self._folder)
        manifest: Mapping[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        names = [each["digest"].partition(":")[2] for each in (manifest["config"], *manifest["layers"])]
        config, *layers = (digest_of_file(folder / name) for name in names)
        return Held(config, tuple(layers))

    def forget(self) -> None:
        shutil.rmtree(self.machine.path(self._folder), ignore_errors=True)


KINDS: Mapping[str, type[Client]] = {
    "docker": Docker,
    "containerd": Containerd,
    "cri": Kubelet,
    "podman": Podman,
    "buildah": Buildah,
    "skopeo": Skopeo,
}


class Clients:
    """The kinds of client on one machine, each made when first asked for."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._made: dict[str, Client] = {}
        machine.path("/etc/containers").mkdir(exist_ok=True)
        machine.path("/etc/containers/policy.json").write_text(POLICY)

    def __getitem__(self, kind: str) -> Client:
        if kind not in self._made:
            made: Any = KINDS[kind]
            self._made[kind] = made(self._machine)
        return self._made[kind]
