"""What requests to token services say, as clients really send them, and as somebody would who is up to no good."""

from typing import Literal
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.tokens import basic

from entrepot.engine.asking import FORM, Asking, asked_by
from entrepot.engine.claims import Claim, basic_claim
from entrepot.engine.engine import Engine
from entrepot.engine.messages import TokenRequest
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.routes import TokenRoute, parse_target

REGISTRY = Catalogue([]).with_overrides([RegistryOverride("registry.test")]).registries()[0]
ANN = Claim("ann", "anns-password")


def asking(
    method: Literal["GET", "POST"], target: str, *fields: tuple[str, str], form: dict[str, str] | str = ""
) -> Asking:
    route = parse_target(target)
    assert isinstance(route, TokenRoute)
    assert Engine.takes(method, route)
    body = form if isinstance(form, str) else urlencode(form)
    headers = [*fields, ("Content-Type", f"{FORM}; charset=utf-8")] if method == "POST" else [*fields]
    return asked_by(
        TokenRequest(method, REGISTRY, "https://tokens.test", route, Headers(headers), "192.0.2.1", body.encode())
    )


# The realms of FACTS.md with the queries that clients add, and the repository each is for.
PULLS = [
    ("/token?scope=repository%3Alibrary%2Falpine%3Apull&service=registry.docker.io", "library/alpine"),  # Docker Hub
    ("/v2/auth?scope=repository%3Aorg%2Fapp%3Apull&service=quay.io", "org/app"),  # quay.io
    ("/token?scope=repository:org/app:pull&service=ghcr.io", "org/app"),  # ghcr.io
    ("/jwt/auth?scope=repository:group/app:pull&service=container_registry", "group/app"),  # registry.gitlab.com
    ("/v2/token?scope=repository:project/app:pull&service=gcr.io", "project/app"),  # gcr.io, pkg.dev
    ("/token/?scope=repository:amazonlinux:pull&service=public.ecr.aws", "amazonlinux"),  # public.ecr.aws
    ("/token/?scope=aws&service=public.ecr.aws", None),  # public.ecr.aws, as it challenges
    ("/oauth2/token?scope=repository:app:pull&service=acme.azurecr.io", "app"),  # ACR
    ("/proxy_auth?scope=repository%3Anvidia%2Fcuda%3Apull", "nvidia/cuda"),  # nvcr.io: no service
    ("/token?account=%24oauthtoken&scope=repository:nvidia/cuda:pull", "nvidia/cuda"),  # authn.nvidia.com
    ("/service/token?scope=repository%3Alibrary%2Fapp%3Apull&service=harbor-registry", "library/app"),  # Harbor
    ("/token?scope=repository:chainguard/static:pull&service=cgr.dev", "chainguard/static"),  # cgr.dev
    ("/auth?service=registry.aliyuncs.com&scope=repository:org/app:pull", "org/app"),  # Alibaba
    ("/oauth/token?service=registry&scope=repository:ibmcom/app:pull", "ibmcom/app"),  # icr.io
    ("/20180419/docker/token?service=ocir&scope=repository:tenant/app:pull", "tenant/app"),  # ocir.io
    (
        "/auth/realms/rhcc/protocol/redhat-docker-v2/auth?service=docker-registry&scope=repository:ubi9:pull",
        "ubi9",
    ),  # registry.redhat.io
]


@pytest.mark.parametrize(("target", "repository"), PULLS)
def test_pulls_of_registries_as_they_are(target: str, repository: str | None) -> None:
    repositories = frozenset({repository}) if repository else frozenset()
    assert asking("GET", target) == Asking(None, True, True, repositories, True)
    assert asking("GET", target, basic("ann", "anns-password")) == Asking(ANN, False, True, repositories, True)
    assert not Engine.takes("HEAD", parse_target(target))
    assert not Engine.takes("PUT", parse_target(target))


FORMS = [
    # containerd and BuildKit with a password
    (
        "/v2/auth",
        {
            "grant_type": "password",
            "service": "quay.io",
            "client_id": "containerd-client",
            "scope": "repository:org/app:pull",
            "username": "ann",
            "password": "anns-password",
        },
        ANN,
    ),
    # docker with an identity token
    (
        "/token",
        {
            "grant_type": "refresh_token",
            "service": "registry.docker.io",
            "client_id": "docker",
            "scope": "repository:org/app:pull",
            "refresh_token": "r",
        },
        Claim("", "r"),
    ),
    # ACR
    (
        "/oauth2/token",
        {
            "grant_type": "refresh_token",
            "service": "acme.azurecr.io",
            "scope": "repository:org/app:pull",
            "refresh_token": "r",
        },
        Claim("", "r"),
    ),
]


@pytest.mark.parametrize(("target", "form", "claim"), FORMS)
def test_forms_of_clients_as_they_are(target: str, form: dict[str, str], claim: Claim) -> None:
    assert asking("POST", target, form=form) == Asking(claim, False, True, frozenset({"org/app"}), True)


def test_a_login_is_for_no_repository() -> None:
    found = asking("GET", "/token?account=ann&client_id=docker&offline_token=true&service=s", basic("ann", "x"))
    assert (found.claim, found.scoped, found.understood) == (Claim("ann", "x"), False, True)


def test_scopes_in_all_their_shapes() -> None:
    target = "/token?service=s&scope=repository:a:pull%20repository:b/c:push,pull&scope=repository(plugin):d:pull"
    extra = "&scope=repository:e:push&scope=registry:catalog:*&scope=repository:f:*&scope=repository:NO:pull&scope=x"
    assert asking("GET", target + extra).repositories == {"a", "b/c", "d", "f"}


PASSWORD = {"grant_type": "password", "service": "s", "username": "ann", "password": "anns-password"}
TOKEN = {"grant_type": "refresh_token", "service": "s", "refresh_token": "r"}


@pytest.mark.parametrize(
    ("method", "target", "fields", "form"),
    [
        # Two credentials: one would vouch for the other.
        ("POST", "/token", [], PASSWORD | {"refresh_token": "r"}),
        ("POST", "/token", [], TOKEN | {"username": "ann", "password": "x"}),
        ("POST", "/token", [basic("bob", "bobs-password")], PASSWORD),
        ("POST", "/token", [("Authorization", "Bearer abc")], TOKEN),
        ("POST", "/token", [], urlencode(PASSWORD) + "&username=bob"),
        ("POST", "/token", [], urlencode(PASSWORD) + "&password=other"),
        ("POST", "/token", [], urlencode(TOKEN) + "&grant_type=password"),
        ("POST", "/token?refresh_token=r", [], PASSWORD),
        ("GET", "/token?service=s&refresh_token=r", [basic("ann", "anns-password")], ""),
        ("GET", "/token?service=s&password=x&username=bob", [basic("ann", "anns-password")], ""),
        ("GET", "/token?service=s", [basic("ann", "x"), basic("bob", "y")], ""),
        # Others than we know, or broken: somebody, and we do not know who.
        ("GET", "/token?service=s&access_token=abc", [], ""),
        ("GET", "/token?service=s&private_token=abc", [], ""),
        ("GET", "/token?service=s", [("Authorization", "Bearer abc")], ""),
        ("GET", "/token?service=s", [("Authorization", "Basic !!")], ""),
        ("GET", "/token?service=s", [("Authorization", "Basic YW5u")], ""),
        ("GET", "/token?service=s", [basic("ann", "")], ""),
        ("GET", "/token?service=s", [basic("", "x")], ""),
        ("GET", "/token?service=s", [("Authorization", "")], ""),
        ("POST", "/token", [], PASSWORD | {"grant_type": "client_credentials"}),
        ("POST", "/token", [], {"grant_type": "client_credentials", "service": "s", "client_secret": "x"}),
        ("POST", "/oauth2/exchange", [], {"grant_type": "access_token", "service": "s", "access_token": "aad"}),
        ("POST", "/token", [], {"service": "s", "scope": "repository:a:pull"}),
        ("POST", "/token", [], PASSWORD | {"password": ""}),
        ("POST", "/token", [], "&".join(f"a{n}=1" for n in range(100))),
        ("GET", "/token?service=s&" + "&".join(f"scope=a{n}" for n in range(100)), [], ""),
    ],
)
def test_what_is_not_understood_is_neither_somebody_nor_nobody(
    method: Literal["GET", "POST"], target: str, fields: list[tuple[str, str]], form: dict[str, str] | str
) -> None:
    found = asking(method, target, *fields, form=form)
    assert (found.claim, found.nobody) == (None, False)


def test_a_body_that_is_no_form_says_nothing() -> None:
    route = parse_target("/token")
    assert isinstance(route, TokenRoute)
    headers = Headers([("Content-Type", "application/json")])
    found = asked_by(TokenRequest("POST", REGISTRY, "https://t", route, headers, "c", urlencode(PASSWORD).encode()))
    assert (found.claim, found.nobody, found.understood) == (None, False, False)


@pytest.mark.parametrize("target", ["/oauth/token", "/oauth2/token"])
def test_other_services_with_such_a_path_are_not_understood(target: str) -> None:
    """GitLab's OAuth is no token service of a registry: in an outage it must not get a token of ours."""
    form = {"grant_type": "password", "username": "ann", "password": "anns-password", "scope": "api"}
    assert not asking("POST", target, form=form).understood


@given(st.text(), st.text())
def test_a_password_comes_out_as_it_went_in(user: str, password: str) -> None:
    user = user.replace(":", "")
    claim = basic_claim(basic(user, password)[1])
    assert claim == (Claim(user, password) if user and password else None)


@pytest.mark.parametrize(
    "claim",
    [
        Claim("", "anything"),
        Claim("ann", "ghp_" + "a1B2" * 9),
        Claim("ann", "github_pat_" + "a1B2" * 20),
        Claim("ann", "glpat-" + "a1B2_" * 4),
        Claim("ann", "dckr_pat_" + "a1B2-" * 6),
        Claim("gitlab-ci-token", "glcbt-64_" + "a1B2" * 5),
        Claim("AWS", "eyJwYXlsb2FkIjoi" + "a1B2" * 100 + "="),
        Claim("oauth2accesstoken", "ya29.a0Af" + "B1-_" * 20),
        Claim("_json_key", '{"type": "service_account", "private_key": "..."}'),
        Claim("$oauthtoken", "x" * 40),
    ],
)
def test_secrets_that_nobody_can_guess(claim: Claim) -> None:
    assert claim.bare


@pytest.mark.parametrize(
    "claim",
    [Claim("ann", "anns-password"), Claim("aws", "summer"), Claim("ann", "ghp_short"), Claim("ann", "x" * 60)],
)
def test_passwords(claim: Claim) -> None:
    assert not claim.bare
    assert claim.secret not in repr(claim)
