"""The house: which room may import which, and where things are found (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "entrepot"

EVERYONE = {
    "amounts",
    "counters",
    "errors",
    "tasks",
    "headers",
    "pulse",
    "pairs",
}  # top-level helpers, which import nothing of ours but each other
MAY_IMPORT = {
    "registry": set[str](),
    "config": {"registry"},
    "cache": {"registry"},
    "upstream": {"registry", "cache"},
    "engine": {"registry", "cache", "upstream"},
    # The worker is put together in addons: it makes what the engine is given.
    "addons": {"registry", "cache", "upstream", "engine", "certs"},
    "dns": {"registry"},
    "certs": {"registry"},
    # It reads what the others leave: it decides about no pull.
    "web": {"registry", "cache", "upstream", "certs"},
    "cli": {"registry", "config", "cache", "upstream", "engine", "addons", "dns", "certs", "web"},
}
ONLY_IN = {
    "mitmproxy": {"addons"},
    "OpenSSL": {"addons", "certs"},
    "dnslib": {"dns", "upstream"},
    "diskcache": {"cache"},
    "aiohttp": {"upstream", "web"},
    "jinja2": {"web"},
    "dns": set[str](),  # dnspython: the other side in tests
    "click": {"cli"},
    "httptools": {"addons"},
}


def imports(path: Path) -> set[str]:
    """Absolute dotted names of what a module imports, type-checking imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_every_room_is_in_the_table() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | EVERYONE | {room, "__version__"}
    for path in modules(room):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("entrepot.")}
        assert ours <= allowed, f"{path.relative_to(PACKAGE)} imports {ours - allowed}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_used_in_its_rooms_only(library: str) -> None:
    for room in MAY_IMPORT.keys() - ONLY_IN[library]:
        for path in modules(room):
            tops = {name.split(".")[0] for name in imports(path)}
            assert library not in tops, path.relative_to(PACKAGE)


@pytest.mark.parametrize("room", ["addons", "dns", "certs"])
def test_the_links_at_the_top_resolve(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == PACKAGE / room


def test_every_test_is_in_the_room_of_what_it_tests() -> None:
    for path in (ROOT / "tests").glob("*/test_*.py"):
        if (room := path.parent.name) not in {"lab", "fakes"}:
            assert room in MAY_IMPORT, path
