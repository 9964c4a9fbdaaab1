"""What a request to a token service says: who asks, and for what.

Read strictly: what is understood only in part is nobody we know, and nothing is learnt from it. A request that carries
two credentials would let one of them be taken for proved by the other; one that carries none, in any form that we know
of, is the only one that counts as anonymous. Distribution specification: "Token Authentication", both forms of it.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from entrepot.engine.claims import Claim, basic_claim
from entrepot.engine.messages import TokenRequest
from entrepot.headers import CODEC, Headers
from entrepot.registry.names import is_repository

PLAIN: Final = frozenset({"service", "scope", "account", "client_id", "offline_token", "access_type", "grant_type"})
"""Parameters that are no credential."""
MAX_PARAMETERS: Final = 64
FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks a token service, and for what."""

    claim: Claim | None  # None and not `nobody`: it has a credential that is not understood
    nobody: bool  # no credential at all
    scoped: bool  # it says what the token is for; a login does not
    repositories: frozenset[str]  # that are to be pulled from
    understood: bool  # it is, beyond doubt, a request to a token service of a registry


def asked_by(request: TokenRequest) -> Asking:
    """What a request to a token service says."""
    query = _parameters(request.route.query)
    form = _parameters(request.body.decode(*CODEC)) if request.method == "POST" and _is_form(request.headers) else {}
    if query is None or form is None:
        return Asking(None, nobody=False, scoped=False, repositories=frozenset(), understood=False)
    scopes = [*query.get("scope", ()), *form.get("scope", ())]
    credential = _credential(request, query, form)
    return Asking(
        credential if isinstance(credential, Claim) else None,
        nobody=credential is None,
        scoped=bool(scopes),
        repositories=frozenset(name for text in scopes for scope in text.split() if (name := _pulled(scope))),
        understood="service" in query or "service" in form or any(scope.startswith("repository:") for scope in scopes),
    )


def _credential(request: TokenRequest, query: dict[str, list[str]], form: dict[str, list[str]]) -> Claim | bool | None:
    """The one there is; None for none at all, False for what is not understood."""
    given = request.headers.get_all("authorization")
    if len(given) > 1 or query.keys() - PLAIN or any(len(form[name]) > 1 for name in form.keys() - {"scope"}):
        return False
    if request.method != "POST":
        return (basic_claim(given[0]) or False) if given else None
    if given:
        return False
    one = {name: values[0] for name, values in form.items()}
    match one.get("grant_type"), sorted(form.keys() - PLAIN):
        case "password", ["password", "username"] if one["username"] and one["password"]:
            return Claim(one["username"], one["password"])
        case "refresh_token", ["refresh_token"] if one["refresh_token"]:
            return Claim("", one["refresh_token"])
        case _:
            return False


def _parameters(text: str) -> dict[str, list[str]] | None:
    """Of a query or a form; None when there are too many."""
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _is_form(headers: Headers) -> bool:
    return (headers.get("content-type") or "").partition(";")[0].strip().lower() == FORM


def _pulled(scope: str) -> str | None:
    """The repository that a scope asks to pull from: `repository:NAME:pull,push`."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    if kind.partition("(")[0] != "repository" or not {"pull", "*"} & set(actions.split(",")):
        return None
    return name if is_repository(name) else None
