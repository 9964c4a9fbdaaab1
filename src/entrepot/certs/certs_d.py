"""The trust of container runtimes: a folder per registry in docker's, containerd's or podman's own.

All three read every "*.crt" of the folder at each pull, so nothing has to be restarted, and a file of our own name
never meets one of theirs. containerd has `hosts.toml` besides: written where there is none, kept up where it is ours,
never touched where it is somebody else's. Leaves the choice of runtimes and registries to `trust`.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from entrepot.certs import bundles, names, profiles
from entrepot.certs.errors import NameNotPermitted, TrustError
from entrepot.certs.rootfs import content, inside
from entrepot.certs.steps import Note, Remove, Step, Write
from entrepot.certs.stores import FILE_PREFIX, file_name

_MARK: Final = "# Made by `entrepot ca install`, which keeps it up; without this line it will leave the file alone.\n"
_HUB: Final = "docker.io"
# Where containerd goes for the name docker.io, and so what `server` must say.
_HUB_SERVER: Final = "registry-1.docker.io"
_CONTAINERD_CONFIG: Final = "/etc/containerd/config.toml"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A container runtime with a folder per registry."""

    kind: str
    home: str
    """There if the runtime is."""

    @property
    def folder(self) -> str:
        """Holds one folder for each registry."""
        return f"{self.home}/certs.d"


RUNTIMES: Final = (
    Runtime("docker", "/etc/docker"),
    Runtime("containerd", "/etc/containerd"),
    Runtime("podman", "/etc/containers"),
)


def plan_install(
    runtime: Runtime, certificates: Sequence[x509.Certificate], hosts: Sequence[str], root: Path
) -> list[Step]:
    """What makes the runtime trust `certificates` for the registries `hosts`; only notes when it does."""
    steps: list[Step] = []
    for host in map(checked_host, hosts):
        if runtime.kind == "docker" and host == _HUB:
            steps.append(Note("docker reads no certs.d for docker.io: for Docker Hub the system's store needs the CA"))
            continue
        for certificate in certificates:
            path = _file(runtime, host, file_name(certificate), root)
            if content(path) != profiles.pem(certificate):
                steps.append(Write(path, profiles.pem(certificate)))
        if runtime.kind == "containerd":
            present = {*_ours(runtime, host, root), *map(file_name, certificates)}
            steps += _hosts_toml(runtime, host, sorted(present), root)
    if runtime.kind == "containerd" and steps:
        steps += _config_path(runtime, root)
    return steps


def plan_uninstall(
    runtime: Runtime, certificates: Sequence[x509.Certificate], hosts: Sequence[str], root: Path
) -> list[Step]:
    """What takes `certificates` out again, for `hosts` or, when there are none, wherever they are."""
    steps: list[Step] = []
    for host in map(checked_host, hosts or _all_hosts(runtime, root)):
        gone = [
            name
            for name, certificate in ((file_name(certificate), certificate) for certificate in certificates)
            if bundles.holds(content(_file(runtime, host, name, root)), certificate)
        ]
        steps += [Remove(_file(runtime, host, name, root), prune=True) for name in gone]
        if gone and runtime.kind == "containerd":
            left = sorted(set(_ours(runtime, host, root)) - set(gone))
            steps += _hosts_toml(runtime, host, left, root)
    return steps


def checked_host(host: str) -> str:
    """A registry as in image names, with or without a port: it becomes a path. Raises `TrustError`."""
    name, colon, port = host.partition(":")
    try:
        checked = names.checked(name)
    except NameNotPermitted:
        checked = ""
    if not checked or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise TrustError(f"{host[:300]!r} is no registry; give a name such as quay.io or registry.example:5000")
    return f"{checked}:{int(port)}" if colon else checked


def _hosts_toml(runtime: Runtime, host: str, files: Sequence[str], root: Path) -> Iterator[Step]:
    """Brings `hosts.toml` in line with the CA files that will be beside it."""
    path = inside(root, f"{runtime.folder}/{host}/hosts.toml")
    current = content(path).decode(errors="replace")
    paths = [f"{runtime.folder}/{host}/{name}.crt" for name in files]
    quoted = ", ".join(f'"{one}"' for one in paths)
    server = _HUB_SERVER if host == _HUB else host
    wanted = f'{_MARK}server = "https://{server}"\nca = [{quoted}]\n'
    if current and not current.startswith(_MARK):
        if files and not all(f'"{one}"' in current for one in paths):
            yield Note(f"{path} is not ours: add `ca = [{quoted}]` above its first [host] table")
        if not files and FILE_PREFIX in current:
            yield Note(f"{path} is not ours: take the {FILE_PREFIX}*.crt that are gone out of its `ca`")
    elif files and current != wanted:
        yield Write(path, wanted.encode())
    elif current and not files:
        yield Remove(path, prune=True)


def _config_path(runtime: Runtime, root: Path) -> Iterator[Step]:
    if runtime.folder in _config_paths(content(inside(root, _CONTAINERD_CONFIG, follow=True))):
        return
    yield Note(
        f"kubelet's pulls (CRI) look there only with config_path = {runtime.folder!r} in {_CONTAINERD_CONFIG} "
        '(containerd 2 has it by default; 1.x under [plugins."io.containerd.grpc.v1.cri".registry]), '
        f"and ctr only with --hosts-dir {runtime.folder}"
    )


def _config_paths(config: bytes) -> set[str]:
    """The folders that any plugin's registry table names: the plugin is called differently in each major version."""
    try:
        plugins = tomllib.loads(config.decode()).get("plugins", {})
    except ValueError:
        return set()
    found: set[str] = set()
    for plugin in plugins.values() if isinstance(plugins, dict) else ():
        registry = plugin.get("registry") if isinstance(plugin, dict) else None
        path = registry.get("config_path") if isinstance(registry, dict) else None
        if isinstance(path, str):
            found.update(part.rstrip("/") for part in path.split(":"))
    return found


def _ours(runtime: Runtime, host: str, root: Path) -> list[str]:
    folder = inside(root, f"{runtime.folder}/{host}", follow=True)
    return [path.stem for path in folder.glob(f"{FILE_PREFIX}*.crt")]


def _all_hosts(runtime: Runtime, root: Path) -> list[str]:
    found = inside(root, runtime.folder, follow=True).glob(f"*/{FILE_PREFIX}*.crt")
    return sorted({path.parent.name for path in found})


def _file(runtime: Runtime, host: str, name: str, root: Path) -> Path:
    return inside(root, f"{runtime.folder}/{host}/{name}.crt")
