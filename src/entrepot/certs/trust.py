"""How a host or an image comes to trust the CA: the plan for one store, and which stores a tree has.

Decides nothing by itself: `stores` and `certs_d` know the stores, `steps` carries a plan out. A plan reads the tree and
changes nothing. Kinds: `kinds()`; the tree of this host is `Path("/")`.
"""

from collections.abc import Sequence
from pathlib import Path

from entrepot.certs import certs_d, stores
from entrepot.certs.bundles import parse_authorities
from entrepot.certs.errors import TrustError
from entrepot.certs.rootfs import inside
from entrepot.certs.steps import Step

_SYSTEMS = {store.kind: store for store in stores.STORES}
_RUNTIMES = {runtime.kind: runtime for runtime in certs_d.RUNTIMES}


def kinds() -> tuple[str, ...]:
    """Every kind of store, operating systems first."""
    return (*_SYSTEMS, *_RUNTIMES)


def needs_hosts(kind: str) -> bool:
    """Whether the store of this kind trusts a CA registry by registry."""
    return kind in _RUNTIMES


def plan_install(kind: str, authority_pem: bytes, hosts: Sequence[str], root: Path) -> list[Step]:
    """The steps after which the store trusts every CA in `authority_pem`; for runtimes, towards `hosts`.

    Empty, or nothing but notes, when it does already. Raises `TrustError`.
    """
    certificates = parse_authorities(authority_pem, "the CA")
    if kind in _SYSTEMS:
        return stores.plan_install(_SYSTEMS[kind], certificates, root)
    return certs_d.plan_install(_runtime(kind), certificates, hosts, root)


def plan_uninstall(kind: str, authority_pem: bytes, hosts: Sequence[str], root: Path) -> list[Step]:
    """The steps after which the store has none of the CAs in `authority_pem`: the inverse of `plan_install`.

    Without `hosts` a runtime forgets them for every registry. Raises `TrustError`.
    """
    certificates = parse_authorities(authority_pem, "the CA")
    if kind in _SYSTEMS:
        return stores.plan_uninstall(_SYSTEMS[kind], certificates, root)
    return certs_d.plan_uninstall(_runtime(kind), certificates, hosts, root)


def detect(root: Path) -> list[str]:
    """The kinds of store that the tree has: one system's at most, by os-release, and the runtimes it is set up for."""
    words = _os_release(root)
    # The first word that says anything: ID before ID_LIKE, and there the closest relative first.
    system = next((store.kind for word in words for store in stores.STORES if word in store.systems), None)
    found = [runtime.kind for runtime in certs_d.RUNTIMES if inside(root, runtime.home, follow=True).is_dir()]
    return found if system is None else [system, *found]


def _os_release(root: Path) -> list[str]:
    """The words of ID and ID_LIKE."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            lines = inside(root, path, follow=True).read_text(errors="replace").splitlines()
        except OSError:
            continue
        values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        both = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}"
        # openSUSE's are "opensuse-tumbleweed" and the like, with ID_LIKE="opensuse suse".
        return both.replace('"', " ").replace("'", " ").lower().split()
    return []


def _runtime(kind: str) -> certs_d.Runtime:
    try:
        return _RUNTIMES[kind]
    except KeyError:
        raise TrustError(f"{kind!r} is no kind of trust store; use one of {', '.join(kinds())}") from None
