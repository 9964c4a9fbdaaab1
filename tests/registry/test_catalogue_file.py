"""The catalogue in the package, and what its reader refuses."""

import pytest

from entrepot.registry.catalogue_file import read, read_builtin
from entrepot.registry.entries import QUIRKS, InvalidRegistry

SMALL = """
[lists]
regions = ["a", "b"]
[[registry]]
name = "Registry.Example"
[[registry]]
name = "hub.example"
hosts = ["hub.example", "hub-1.example"]
upstream = "https://hub-1.example"
quirks = ["head-is-free"]
[[registry.token_hosts]]
host = "auth.example"
why = "the realm"
[[registry]]
name = "r.{region}.example"
regions = "regions"
[[family]]
patterns = ["*.{region}.family.example", "*.other.example"]
regions = "regions"
label = "[0-9]+"
"""


def test_read() -> None:
    file = read(SMALL)
    plain, hub, a, b = file.registries
    assert (plain.name, plain.hosts, plain.upstream) == (
        "registry.example",
        ("registry.example",),
        "https://registry.example",
    )
    assert (hub.hosts, hub.token_hosts) == (("hub.example", "hub-1.example"), ("auth.example",))
    assert (hub.upstream, hub.quirks) == ("https://hub-1.example", frozenset({"head-is-free"}))
    assert (a.hosts, b.upstream) == (("r.a.example",), "https://r.b.example")
    assert file.token_host_reasons == {"auth.example": "the realm"}
    patterns = [one.pattern for one in file.families]
    assert patterns == ["*.a.family.example", "*.b.family.example", "*.other.example"]
    assert all(one.model.family == one.pattern and not one.takes("x") for one in file.families)


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[[registry]]\nhosts = ['a.b']",
        "[[registry]]\nname = 1",
        "[[registry]]\nname = 'a.{region}.b'\nregions = 'nowhere'",
        "[[registry]]\nname = 'a.{region}.b'",
        "[[registry]]\nname = 'a.b'\nquirks = ['odd']",
        "[[registry]]\nname = 'a.b'\nupstream = 'a.b'",
        "[[registry]]\nname = 'a.b'\n[[registry.token_hosts]]\nhost = 'c.b'",
        "[[registry]]\nname = '*.a.b'",
        "[[family]]\npatterns = ['a.b']",
        "[[family]]\npatterns = ['*.a.b']\nlabel = '('",
        "[[family]]\nlabel = 'x'",
        "registry = 1",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidRegistry):
        read(text)


def test_the_builtin_one_reads() -> None:
    file = read_builtin()
    assert len(file.registries) > 20
    assert len(file.families) > 20
    used = frozenset().union(*(entry.quirks for entry in file.registries), *(one.model.quirks for one in file.families))
    assert used == QUIRKS


def test_every_token_host_of_its_own_says_why() -> None:
    file = read_builtin()
    token_hosts = {host for registry in file.registries for host in registry.token_hosts}
    assert token_hosts == set(file.token_host_reasons)
    assert all(len(why) > 20 for why in file.token_host_reasons.values())
