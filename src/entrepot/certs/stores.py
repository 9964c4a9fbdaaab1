"""The trust stores of operating systems, as data, and the plans to put CAs into one or take them out.

With the host's own root a plan ends with the system's command, which knows best. With any other root nothing may be
run, so the plan writes what the command would have: the bundle, and the links OpenSSL finds certificates by. A later
run of the command inside that tree comes to the same. Leaves which store a tree has to `trust`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cryptography import x509
from OpenSSL import crypto

from entrepot.certs import bundles, profiles
from entrepot.certs.rootfs import content, inside
from entrepot.certs.steps import Link, Note, Remove, Run, Step, Write

HOST_ROOT: Final = Path("/")
# What the names of our files begin with, in every store.
FILE_PREFIX: Final = "entrepot-"

_RESTART: Final = Note(
    "dockerd, containerd (and so kubelet's pulls) and buildkitd read the store once: restart those that run here "
    "(systemctl restart docker containerd buildkit); podman, skopeo, buildah, ctr and crane see it at their next run"
)
_OTHERS: Final = (
    "Node.js looks elsewhere (NODE_EXTRA_CA_CERTS={file}), and so does Python's requests (REQUESTS_CA_BUNDLE)"
)


@dataclass(frozen=True, slots=True)
class HashFolder:
    """A folder where OpenSSL looks certificates up by the hash of their subject."""

    path: str
    link: str | None
    """The name the hash points to, which itself points to the anchor; None: the hash points to the anchor."""


@dataclass(frozen=True, slots=True)
class SystemStore:
    """How one family of systems keeps the CAs it trusts. Paths as seen inside the tree."""

    kind: str
    systems: frozenset[str]
    """`ID` or `ID_LIKE` of os-release."""
    anchors: str
    """The folder for CAs of the site; one per file."""
    command: tuple[str, ...]
    package: str
    bundle: str
    hashes: tuple[HashFolder, ...]
    remainder: str | None
    """What the command makes besides, and a plan for another root does not."""


_DEBIAN_ANCHORS: Final = "/usr/local/share/ca-certificates"
_JAVA: Final = "Java's keystore in this tree is made by `{command}`: run that in it if Java is used there"

STORES: Final = (
    SystemStore(
        kind="debian",
        systems=frozenset({"debian", "ubuntu"}),
        anchors=_DEBIAN_ANCHORS,
        command=("update-ca-certificates",),
        package="ca-certificates",
        bundle="/etc/ssl/certs/ca-certificates.crt",
        hashes=(HashFolder("/etc/ssl/certs", "{name}.pem"),),
        remainder=_JAVA,
    ),
    SystemStore(
        kind="rhel",
        systems=frozenset({"rhel", "fedora", "centos", "amzn", "azurelinux", "mariner"}),
        anchors="/etc/pki/ca-trust/source/anchors",
        command=("update-ca-trust", "extract"),
        package="ca-certificates",
        bundle="/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        # New in Fedora and RHEL 10; where it is missing, OpenSSL reads the bundle.
        hashes=(HashFolder("/etc/pki/ca-trust/extracted/pem/directory-hash", None),),
        remainder=_JAVA,
    ),
    SystemStore(
        kind="alpine",
        systems=frozenset({"alpine", "wolfi", "chainguard"}),
        anchors=_DEBIAN_ANCHORS,
        command=("update-ca-certificates",),
        package="ca-certificates",
        bundle="/etc/ssl/certs/ca-certificates.crt",
        hashes=(HashFolder("/etc/ssl/certs", "ca-cert-{name}.pem"),),
        remainder=None,
    ),
    SystemStore(
        kind="suse",
        systems=frozenset({"suse", "opensuse", "sles"}),
        anchors="/etc/pki/trust/anchors",
        command=("update-ca-certificates",),
        package="ca-certificates",
        bundle="/var/lib/ca-certificates/ca-bundle.pem",
        hashes=(
            HashFolder("/var/lib/ca-certificates/pem", None),
            HashFolder("/var/lib/ca-certificates/openssl", None),
        ),
        remainder=_JAVA,
    ),
    SystemStore(
        kind="arch",
        systems=frozenset({"arch"}),
        anchors="/etc/ca-certificates/trust-source/anchors",
        command=("update-ca-trust",),
        package="ca-certificates-utils",
        bundle="/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        hashes=(HashFolder("/etc/ca-certificates/extracted/cadir", None), HashFolder("/etc/ssl/certs", None)),
        remainder=_JAVA,
    ),
)


def file_name(certificate: x509.Certificate) -> str:
    """What a CA's file is called in every store, without its ending: several CAs can be side by side."""
    return f"{FILE_PREFIX}{profiles.short_id(certificate)}"


def plan_install(store: SystemStore, certificates: Sequence[x509.Certificate], root: Path) -> list[Step]:
    """What makes the store trust all of `certificates`; empty when it does."""
    steps: list[Step] = []
    for certificate in certificates:
        anchor, wanted = _anchor(store, certificate, root), profiles.pem(certificate)
        if content(anchor) != wanted:
            steps.append(Write(anchor, wanted))
    if root == HOST_ROOT:
        bundle = content(inside(root, store.bundle, follow=True))
        if steps or not all(bundles.holds(bundle, certificate) for certificate in certificates):
            steps.append(Run(store.command, store.package))
    else:
        steps += _bundle_step(store, root, lambda bundle: bundles.with_added(bundle, certificates))
        for certificate in certificates:
            steps += _missing_links(store, certificate, root)
    return [*steps, *_notes(store, certificates, root)] if steps else []


def plan_uninstall(store: SystemStore, certificates: Sequence[x509.Certificate], root: Path) -> list[Step]:
    """What makes the store forget all of `certificates`; empty when it knows none."""
    steps: list[Step] = []
    for certificate in certificates:
        anchor = _anchor(store, certificate, root)
        if bundles.holds(content(anchor), certificate):
            steps.append(Remove(anchor))
        # Debian's command leaves the links of a file that is gone where they are.
        steps += [Remove(link) for folder in store.hashes for link in _links_to(folder, certificate, root, store)]
    if root == HOST_ROOT:
        bundle = content(inside(root, store.bundle, follow=True))
        if steps or any(bundles.holds(bundle, certificate) for certificate in certificates):
            steps.append(Run(store.command, store.package))
    else:
        steps += _bundle_step(store, root, lambda bundle: bundles.without(bundle, certificates))
    return [*steps, _RESTART] if steps else []


def _bundle_step(store: SystemStore, root: Path, edit: Callable[[bytes], bytes]) -> Iterator[Step]:
    path = inside(root, store.bundle, follow=True)
    before = content(path)
    after = edit(before)
    if before and not after:
        yield Remove(path)
    elif after != before:
        yield Write(path, after)
    if after and not before:
        yield Note(f"there was no {path}: it holds nothing else now; install {store.package} for the public CAs")


def _missing_links(store: SystemStore, certificate: x509.Certificate, root: Path) -> Iterator[Step]:
    for folder in store.hashes:
        # Debian and Alpine have the bundle in it, so it is there or about to be.
        if not inside(root, folder.path, follow=True).is_dir() and not store.bundle.startswith(f"{folder.path}/"):
            continue
        named, anchor = _targets(folder, certificate, store)
        if folder.link is not None:
            yield from _link(inside(root, f"{folder.path}/{named}"), anchor)
        yield from _link(_hash_link(folder, certificate, root, named), named)


def _link(path: Path, target: str) -> Iterator[Step]:
    if not (path.is_symlink() and str(path.readlink()) == target):
        yield Link(path, target)


def _hash_link(folder: HashFolder, certificate: x509.Certificate, root: Path, target: str) -> Path:
    """The link that is ours already, or the first free one: subjects that share a hash are numbered."""
    number = 0
    while True:
        path = inside(root, f"{folder.path}/{subject_hash(certificate)}.{number}")
        if not (path.is_symlink() or path.exists()) or (path.is_symlink() and str(path.readlink()) == target):
            return path
        number += 1


def _links_to(folder: HashFolder, certificate: x509.Certificate, root: Path, store: SystemStore) -> Iterable[Path]:
    targets = set(_targets(folder, certificate, store))
    base = inside(root, folder.path, follow=True)
    candidates = [*base.glob(f"{subject_hash(certificate)}.*")]
    if folder.link is not None:
        candidates.append(base / folder.link.format(name=file_name(certificate)))
    return [path for path in candidates if path.is_symlink() and str(path.readlink()) in targets]


def _targets(folder: HashFolder, certificate: x509.Certificate, store: SystemStore) -> tuple[str, str]:
    """What the hash points to, and the anchor."""
    name = file_name(certificate)
    anchor = f"{store.anchors}/{name}.crt"
    return (anchor if folder.link is None else folder.link.format(name=name)), anchor


def subject_hash(certificate: x509.Certificate) -> str:
    """As `openssl x509 -subject_hash`. Only OpenSSL itself knows how it is made up (X509_NAME_hash)."""
    return f"{crypto.X509.from_cryptography(certificate).subject_name_hash():08x}"


def _notes(store: SystemStore, certificates: Sequence[x509.Certificate], root: Path) -> Iterator[Step]:
    yield _RESTART
    yield Note(_OTHERS.format(file=f"{store.anchors}/{file_name(certificates[0])}.crt"))
    if root != HOST_ROOT and store.remainder is not None:
        yield Note(store.remainder.format(command=" ".join(store.command)))


def _anchor(store: SystemStore, certificate: x509.Certificate, root: Path) -> Path:
    return inside(root, PurePosixPath(store.anchors) / f"{file_name(certificate)}.crt")
