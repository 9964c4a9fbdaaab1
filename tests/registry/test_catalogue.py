"""Which names are registries, and how a user's entries change that."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry.catalogue import Catalogue, HostMatch, InvalidRegistry, Registry, RegistryOverride
from entrepot.registry.entries import family

BUILTIN = Catalogue.builtin()
ACCOUNT = "123456789012"


def within(host: str, subtree: str) -> bool:
    """As name constraints have it, RFC 5280 4.2.1.10."""
    return host == subtree or host.endswith("." + subtree)


def found(host: str, catalogue: Catalogue = BUILTIN) -> HostMatch:
    match = catalogue.match(host)
    assert match is not None, host
    return match


@pytest.mark.parametrize(
    ("host", "name", "role", "upstream"),
    [
        ("docker.io", "docker.io", "api", "https://registry-1.docker.io"),
        ("registry-1.docker.io", "docker.io", "api", "https://registry-1.docker.io"),
        ("index.docker.io", "docker.io", "api", "https://registry-1.docker.io"),
        ("auth.docker.io", "docker.io", "token", "https://registry-1.docker.io"),
        ("quay.io", "quay.io", "api", "https://quay.io"),
        ("registry.gitlab.com", "registry.gitlab.com", "api", "https://registry.gitlab.com"),
        ("gitlab.com", "registry.gitlab.com", "token", "https://registry.gitlab.com"),
        ("gcr.io", "gcr.io", "api", "https://gcr.io"),
        ("k8s.gcr.io", "k8s.gcr.io", "api", "https://k8s.gcr.io"),
        ("acme.azurecr.io", "acme.azurecr.io", "api", "https://acme.azurecr.io"),
        ("acme.eastus.geo.azurecr.io", "acme.eastus.geo.azurecr.io", "api", "https://acme.eastus.geo.azurecr.io"),
        ("europe-west1-docker.pkg.dev",) * 2 + ("api", "https://europe-west1-docker.pkg.dev"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com",) * 2
        + ("api", f"https://{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"),
        (f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws",) * 2 + ("api", f"https://{ACCOUNT}.dkr-ecr.eu-west-1.on.aws"),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn",) * 2
        + ("api", f"https://{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("us.icr.io", "us.icr.io", "api", "https://us.icr.io"),
    ],
)
def test_match(host: str, name: str, role: str, upstream: str) -> None:
    match = found(host)
    assert (match.host, match.role) == (host, role)
    assert (match.registry.name, match.registry.upstream) == (name, upstream)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("registry-1.docker.io", "https://registry-1.docker.io"),
        ("index.docker.io", "https://index.docker.io"),
        ("auth.docker.io", "https://auth.docker.io"),
        ("gitlab.com", "https://gitlab.com"),
        ("acme.azurecr.io", "https://acme.azurecr.io"),
        ("private.example", "http://10.0.0.1:5000"),
        ("also.example", "http://10.0.0.1:5000"),
        ("auth.example", "https://auth.example"),
    ],
)
def test_what_is_behind_a_name_besides_the_api(host: str, origin: str) -> None:
    hosts, upstream = ("private.example", "also.example"), "http://10.0.0.1:5000"
    private = RegistryOverride("private.example", hosts=hosts, token_hosts=("auth.example",), upstream=upstream)
    assert found(host, BUILTIN.with_overrides([private])).origin == origin


@pytest.mark.parametrize("host", ["QUAY.io", "quay.io.", "Quay.IO.", "ACME.azurecr.IO."])
def test_case_and_trailing_dot_do_not_matter(host: str) -> None:
    assert found(host) == found(host.lower().removesuffix("."))


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        "quay.io..",
        ".quay.io",
        "www.quay.io",
        "xquay.io",
        "quay.io.evil.example",
        "io",
        "cdn01.quay.io",
        "production.cloudflare.docker.com",
        "hub.docker.com",
        "registry.docker.io",
        "azurecr.io",
        ".azurecr.io",
        "a.b.azurecr.io",
        "acme.eastus.data.azurecr.io",
        "eastus.geo.azurecr.io",
        "-.azurecr.io",
        "a b.azurecr.io",
        "a/b.azurecr.io",
        "*.azurecr.io",
        "a\x00.azurecr.io",
        "europe-west1-python.pkg.dev",
        "pkg.dev",
        "docker.pkg.dev",
        "us-docker.pkg.dev.evil.example",
        "amazonaws.com",
        "s3.eu-west-1.amazonaws.com",
        "sts.amazonaws.com",
        "dkr.ecr.eu-west-1.amazonaws.com",
        "api.ecr.eu-west-1.amazonaws.com",
        "evil.dkr.ecr.eu-west-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.nowhere-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com.cn",
        "10.0.0.1",
        "localhost",
        "doc\u212aer.io",
        "a" * 300 + ".azurecr.io",
        "a" * 64 + ".azurecr.io",
        "a." * 100_000 + "azurecr.io",
    ],
)
def test_no_match(host: str) -> None:
    assert BUILTIN.match(host) is None


def test_a_host_of_a_family_is_a_registry_of_its_own() -> None:
    acme, other = found("acme.azurecr.io").registry, found("other.azurecr.io").registry
    assert acme == Registry(
        "acme.azurecr.io", ("acme.azurecr.io",), (), "https://acme.azurecr.io", family="*.azurecr.io"
    )
    assert acme.name != other.name
    assert "basic-auth" in found(f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com").registry.quirks
    assert found("acme.azurecr.io") is found("acme.azurecr.io")


def test_made_up_hosts_do_not_fill_the_memory() -> None:
    catalogue = Catalogue.builtin()
    for number in range(5000):
        assert catalogue.match(f"x{number}.azurecr.io") is not None
    assert len(catalogue._made) <= 1024


def test_what_may_be_signed_for_covers_what_is_intercepted_and_little_else() -> None:
    subtrees = BUILTIN.permitted_subtrees()
    assert set(BUILTIN.names()) <= set(subtrees)
    hosts = [*BUILTIN.names(), "acme.azurecr.io", "k8s.gcr.io", "us-docker.pkg.dev", "a.cn-hangzhou.cr.aliyuncs.com"]
    hosts += [pattern.replace("*", ACCOUNT) for pattern in BUILTIN.families() if pattern != "*.pkg.dev"]
    for host in hosts:
        assert BUILTIN.match(host) is not None, host
        assert any(within(host, subtree) for subtree in subtrees), host
    for host in ("amazonaws.com", "s3.eu-west-1.amazonaws.com", "us-python.pkg.dev", "aliyuncs.com", "on.aws"):
        assert not any(within(host, subtree) for subtree in subtrees), host
    assert not any(subtree.startswith("*") or subtree.count(".") < 1 for subtree in subtrees)
    assert "gcr.io" in subtrees
    assert subtrees == sorted(set(subtrees))


def test_names_and_families_are_what_match_finds() -> None:
    assert {host for registry in BUILTIN.registries() for host in (*registry.hosts, *registry.token_hosts)} == set(
        BUILTIN.names()
    )
    assert "*.gcr.io" in BUILTIN.families()
    assert "*.pkg.dev" in BUILTIN.families()
    assert [registry.name for registry in BUILTIN.registries()] == sorted(r.name for r in BUILTIN.registries())


def test_registry_by_the_name_of_an_image() -> None:
    docker = BUILTIN.registry("docker.io")
    assert docker is not None
    assert docker is BUILTIN.registry("registry-1.docker.io")
    acme = BUILTIN.registry("acme.azurecr.io")
    assert acme is not None
    assert acme.family == "*.azurecr.io"
    assert BUILTIN.registry("auth.docker.io") is None
    assert BUILTIN.registry("registry.example:5000") is None


def test_token_host_reasons() -> None:
    assert set(BUILTIN.token_host_reasons()) >= {"auth.docker.io", "gitlab.com"}
    changed = BUILTIN.with_overrides([RegistryOverride("registry.gitlab.com", token_hosts=())])
    assert "gitlab.com" not in changed.token_host_reasons()
    assert changed.match("gitlab.com") is None


class TestOverrides:
    """`[registries."..."]` of the configuration."""

    def test_a_new_registry(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("Registry.Example:5000", ca=(Path("ca.pem"),))])
        registry = found("registry.example", catalogue).registry
        assert registry == Registry(
            "registry.example:5000",
            ("registry.example",),
            (),
            "https://registry.example:5000",
            ca=(Path("ca.pem"),),
        )
        assert catalogue.registry("registry.example:5000") is registry
        assert "registry.example" in catalogue.names()
        assert "registry.example" in catalogue.permitted_subtrees()
        assert BUILTIN.match("registry.example") is None

    def test_everything_of_a_registry_can_be_said(self) -> None:
        entry = RegistryOverride(
            "r.example",
            hosts=("r.example", "R2.example."),
            token_hosts=("auth.example",),
            upstream="http://10.0.0.1:5000/",
            tag_ttl=1,
            tag_ttls=(("*:v*", 9.0),),
            stale_while_revalidate=8,
            access_ttl=2,
            public_ttl=3,
            outage_grace=4,
            prefetch="off",
        )
        catalogue = BUILTIN.with_overrides([entry])
        registry = found("r2.example", catalogue).registry
        hosts = ("r.example", "r2.example")
        policy = (1, (("*:v*", 9.0),), 8, 2, 3, 4, "off")
        assert registry == Registry("r.example", hosts, ("auth.example",), "http://10.0.0.1:5000", (), *policy)
        assert found("auth.example", catalogue).role == "token"

    def test_a_known_registry_keeps_what_is_not_said(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("docker.io", tag_ttl=300)])
        registry = found("index.docker.io", catalogue).registry
        assert registry.tag_ttl == 300
        assert registry.upstream == "https://registry-1.docker.io"
        assert registry.token_hosts == ("auth.docker.io",)
        assert "head-is-free" in registry.quirks
        assert catalogue.names() == BUILTIN.names()

    def test_one_host_of_a_family(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("acme.azurecr.io", tag_ttl=5)])
        assert found("acme.azurecr.io", catalogue).registry.tag_ttl == 5
        assert found("acme.azurecr.io", catalogue).registry.family == "*.azurecr.io"
        assert found("other.azurecr.io", catalogue).registry.tag_ttl is None
        assert "acme.azurecr.io" in catalogue.names()

    def test_a_family_and_one_host_of_it_in_either_order(self) -> None:
        entries = [RegistryOverride("acme.azurecr.io", access_ttl=5), RegistryOverride("*.azurecr.io", tag_ttl=7)]
        for order in (entries, entries[::-1]):
            catalogue = BUILTIN.with_overrides(order)
            assert found("other.azurecr.io", catalogue).registry.tag_ttl == 7
            acme = found("acme.azurecr.io", catalogue).registry
            assert (acme.tag_ttl, acme.access_ttl) == (7, 5)

    def test_a_new_family(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("*.registry.example", ca=(Path("x"),))])
        registry = found("team.registry.example", catalogue).registry
        assert (registry.name, registry.upstream) == ("team.registry.example", "https://team.registry.example")
        assert registry.ca == (Path("x"),)
        assert "registry.example" in catalogue.permitted_subtrees()
        assert "*.registry.example" in catalogue.families()

    def test_an_address_needs_hosts_of_its_own(self) -> None:
        with pytest.raises(InvalidRegistry, match="not a host name"):
            BUILTIN.with_overrides([RegistryOverride("10.0.0.1:5000")])
        catalogue = BUILTIN.with_overrides([RegistryOverride("10.0.0.1:5000", hosts=("r.example",))])
        assert found("r.example", catalogue).registry.upstream == "https://10.0.0.1:5000"
        assert catalogue.registry("10.0.0.1:5000") is not None

    def test_no_hosts_is_not_intercepted(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("quay.io", hosts=())])
        assert catalogue.match("quay.io") is None
        assert "quay.io" not in catalogue.permitted_subtrees()
        assert catalogue.registry("quay.io") is not None

    def test_overrides_add_up(self) -> None:
        catalogue = BUILTIN.with_overrides([RegistryOverride("a.example")])
        catalogue = catalogue.with_overrides([RegistryOverride("b.example"), RegistryOverride("a.example", tag_ttl=1)])
        assert found("a.example", catalogue).registry.tag_ttl == 1
        assert found("b.example", catalogue).registry.name == "b.example"

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            (RegistryOverride("registry-1.docker.io"), "'docker.io'; name the entry that"),
            (RegistryOverride("auth.docker.io"), "'docker.io'; name the entry that"),
            (RegistryOverride("r.example", hosts=("quay.io",)), "claimed by 'quay.io' and by 'r.example'"),
            (RegistryOverride("r.example", token_hosts=("quay.io",)), "claimed by"),
            (RegistryOverride("https://r.example"), "not a registry"),
            (RegistryOverride("r.example/path"), "not a registry"),
            (RegistryOverride(""), "not a registry"),
            (RegistryOverride("r.example", hosts=("r.example:443",)), "not a host name"),
            (RegistryOverride("r.example", upstream="r.example"), "not an upstream"),
            (RegistryOverride("*.azurecr.io", upstream="https://x.example"), "is a family"),
            (RegistryOverride("*.io"), "not a family"),
            (RegistryOverride("a.*.example"), "not a family"),
        ],
    )
    def test_refused(self, entry: RegistryOverride, message: str) -> None:
        with pytest.raises(InvalidRegistry, match=message.replace("*", r"\*")):
            BUILTIN.with_overrides([entry])


def test_two_entries_of_one_name_are_refused() -> None:
    one, two = (Registry("r.example", hosts, (), "https://r.example") for hosts in ((), ("r.example",)))
    with pytest.raises(InvalidRegistry, match="two registries"):
        Catalogue([one, two])
    three = family("*.r.example", one)
    four = family("*.r.example", two)
    with pytest.raises(InvalidRegistry, match="two families"):
        Catalogue([], [three, four])


def test_it_crosses_processes() -> None:
    copy: Catalogue = pickle.loads(pickle.dumps(BUILTIN))
    assert found("acme.azurecr.io", copy) == found("acme.azurecr.io")
    assert copy.names() == BUILTIN.names()


LABELS = st.sampled_from(
    ["docker", "io", "azurecr", "a", "", "*", "dkr", "ecr", "us-east-1", "amazonaws", "com", "A", "geo"]
)


@given(st.one_of(st.text(), st.lists(LABELS, max_size=7).map(".".join)))
def test_whatever_matches_is_a_host_and_may_be_signed_for(host: str) -> None:
    match = BUILTIN.match(host)
    if match is None:
        return
    assert match.host == host.lower().removesuffix(".")
    assert any(within(match.host, subtree) for subtree in BUILTIN.permitted_subtrees())
    assert match.registry.upstream.startswith("https://")
