"""The audit log: one line for each time that somebody is given something of a repository that is not public.

Logger `entrepot.audit`. A line says who (never by a secret: a part of the HMAC that the box knows an account or a
credential by, the same in every line of that account), what, and on what ground:

    checked              the registry has just answered this very client, or would have: it was asked
    granted              it has accepted this credential, or this account, lately
    verified offline     it cannot be asked; it had accepted the account before, and the password was checked here

What is not known to be public counts as not public: while the first look at a repository is under way it is `unknown`.
Who may have what is decided by `admission`.
"""

import logging
from collections.abc import Mapping
from typing import Final

from entrepot.engine.admission import Admission
from entrepot.engine.identity import Identity
from entrepot.engine.messages import Answer, PullRequest
from entrepot.pairs import write
from entrepot.registry.digests import Digest
from entrepot.registry.routes import BlobRoute, ManifestRoute

LOG: Final = logging.getLogger("entrepot.audit")
HEAD: Final = "admitted"
SERVED: Final = frozenset({200, 206, 304})
FINGERPRINT: Final = 16  # characters of an HMAC: enough to tell any number of accounts apart
REMEMBERED: Final = frozenset({"hit", "stale", "joined", "held"})  # verdicts for which the registry was not asked


class Audit:
    """Writes for one process."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def note(self, request: PullRequest, answer: Answer) -> None:
        """After it is decided, before a byte is sent."""
        if (fields := self.fields(request, answer)) is not None:
            write(LOG, fields, HEAD)

    def fields(self, request: PullRequest, answer: Answer) -> Mapping[str, object] | None:
        """What the line says; None if none is due."""
        repository = getattr(request.route, "repository", None)
        if answer.status not in SERVED or answer.admitted == "public" or not isinstance(repository, str):
            return None
        if self._admission.is_public(request, repository):
            return None
        private = self._admission.is_private(request, repository)
        if request.identity.anonymous and not private:
            return None  # what nobody's rights are enough for is public
        return {
            "client": request.client,
            "registry": request.registry.name,
            "repository": repository,
            "private": "yes" if private else "unknown",
            **_what(request, answer),
            "who": fingerprint(request.identity, repository),
            "ground": self._ground(request, answer, repository),
            "verdict": answer.verdict,
            "status": answer.status,
        }

    def _ground(self, request: PullRequest, answer: Answer, repository: str) -> str:
        reason = answer.admitted or self._admission.admits(request, repository) or ""
        if answer.verdict not in REMEMBERED or reason in {"", "checked"}:
            return "checked"
        return "verified offline" if reason == "account" and request.identity.offline else "granted"


def fingerprint(identity: Identity, repository: str) -> str:
    """Of the account if it is known, else of the credential; nothing can be made of it."""
    if account := identity.account_for(repository):
        return f"account:{account.removeprefix('account-')[:FINGERPRINT]}"
    return "nobody" if identity.anonymous else f"credential:{identity.credential[:FINGERPRINT]}"


def _what(request: PullRequest, answer: Answer) -> dict[str, object]:
    match request.route:
        case ManifestRoute(reference=Digest() as digest) | BlobRoute(digest=digest):
            return {"digest": str(digest)}
        case ManifestRoute(reference=tag):
            return {"tag": tag, "digest": answer.headers.get("docker-content-digest", "-")}
        case _:
            return {"list": request.route.path}
