"""Whether a request may have what is held, and what each word of the registry changes about that (DESIGN rule 3).

Held content goes to whom may read the repository, for one of these reasons: anyone may (`public`), the registry has
accepted this very credential lately (`credential`), or another one of the same person (`account`). Lately means
`access_ttl`, and `outage_grace` while the registry cannot be asked. Everybody else is asked for upstream, by the
caller, who tells here what it said. What a registry says to the box's own account is no reason for anything.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final, Literal

from entrepot.engine.access import Access
from entrepot.engine.identity import Identity
from entrepot.engine.messages import PullRequest
from entrepot.engine.policy import Policy
from entrepot.engine.publicness import SAYS_NO, Publicness
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor
from entrepot.registry.routes import ManifestRoute
from entrepot.tasks import spawn

type Reason = Literal["public", "credential", "account"]

LOOK_AGAIN: Final = 3600.0  # seconds before a repository that is not public is looked at again
REFUSALS: Final = frozenset({401, 403})
SURE: Final = 60.0  # seconds after a look in which the box may ask in its own name for what anyone may have


class Admission:
    """Answers for one process; what it knows is in the records, so all processes know it."""

    def __init__(
        self,
        access: Access,
        publicness: Publicness,
        policy: Policy,
        *,
        is_out: Callable[[PullRequest], bool],
        on_accepted: Callable[[PullRequest], Awaitable[Identity]],
    ) -> None:
        """`is_out`: the registry surely cannot be asked, which no client can have brought about.

        `on_accepted` is told of requests admitted to what is private, and says whose they are, now that this is known.
        """
        self._access, self._publicness = access, publicness
        self._is_out, self._on_accepted = is_out, on_accepted
        self.policy = policy

    def admits(self, request: PullRequest, repository: str) -> Reason | None:
        """Why this request may read the repository without the registry being asked; None: it must be."""
        return self._admits(request, repository, grace=request.identity.grace or self._is_out(request))

    def admits_of_late(self, request: PullRequest, repository: str) -> Reason | None:
        """The same as in an outage, where the registry can be asked, and has nothing to say of it any more."""
        return self._admits(request, repository, grace=True)

    def _admits(self, request: PullRequest, repository: str, *, grace: bool) -> Reason | None:
        registry, identity = request.registry, request.identity
        if self._access.is_public(registry.name, repository, self._public_ttl(request, grace=grace)):
            return "public"
        ttl = self.policy.outage_grace(registry) if grace else self.policy.access_ttl(registry)
        match self._access.granted(repository, identity, ttl):
            case "credential":
                return "credential"
            case "account":
                return "account"
            case _:
                return None

    def is_public(self, request: PullRequest, repository: str) -> bool:
        """Whether anyone may read it, as far as is known."""
        return self._access.is_public(request.registry.name, repository, self.policy.public_ttl(request.registry))

    def is_private(self, request: PullRequest, repository: str) -> bool:
        """Whether a look has shown that not anyone may read it."""
        known = self._access.publicness(request.registry.name, repository)
        return known is not None and not known.public

    async def is_surely_public(self, request: PullRequest, repository: str, reference: Digest | str | None) -> bool:
        """The same, as a look of a moment ago has found: before the box asks in its own name for others.

        Else one who may not read it any more could have by the box what he cannot have himself. When the registry does
        not say, because it throttles the anonymous, what is known counts.
        """
        registry = request.registry
        known = self._access.publicness(registry.name, repository)
        if known is None or not self.is_public(request, repository):
            return False
        if self._access.within(known.at, SURE):
            return True
        if reference is None:
            return False
        status = await self._publicness.status(request, repository, reference)
        if status is not None and (status < 400 or status in REFUSALS):
            await self._access.set_public(registry.name, repository, public=status < 400)
        return status is None or status not in SAYS_NO  # with 404 it may be the manifest that is not there

    def _public_ttl(self, request: PullRequest, *, grace: bool) -> float:
        """While nobody can be asked the last word stands, however old it is within the grace."""
        ttl = self.policy.public_ttl(request.registry)
        return max(ttl, self.policy.outage_grace(request.registry)) if grace else ttl

    def belongs(self, request: PullRequest, repository: str, digest: Digest) -> bool:
        """Whether the digest may be served under the repository to whom may read that."""
        return self._access.belongs(request.registry.name, repository, digest)

    def size_of(self, request: PullRequest, repository: str, digest: Digest) -> int | None:
        """Bytes, if a manifest of the repository or upstream has said."""
        member = self._access.member(request.registry.name, repository, digest)
        return member.size if member is not None and member.size >= 0 else None

    def is_followed(self, request: PullRequest, repository: str, digest: Digest) -> bool:
        """Whether all that this manifest refers to is known to belong to the repository."""
        member = self._access.member(request.registry.name, repository, digest)
        return member is not None and member.followed

    def referrer(self, request: PullRequest, repository: str, digest: Digest) -> Digest | None:
        """A manifest of the repository that refers to the digest."""
        member = self._access.member(request.registry.name, repository, digest)
        return Digest.parse(member.referrer) if member is not None and member.referrer else None

    async def accepted(self, request: PullRequest, repository: str, reference: Digest | str | None = None) -> None:
        """The registry has just answered this very credential with content of the repository, or offered it.

        `reference`: a manifest of it, by which an anonymous look can tell whether anyone might have had it.
        """
        if request.asks != "client":
            return  # that the box may have it, or anyone, is no right of this client's
        registry, identity = request.registry, request.identity
        known = self._access.publicness(registry.name, repository)
        if identity.anonymous or identity.own:  # of a token of ours the registry has seen nothing
            if known is None or not known.public or not self._access.within(known.at, self._fresh(request)):
                await self._access.set_public(registry.name, repository, public=True)
            return
        if known is not None and known.public and self._access.within(known.at, self.policy.public_ttl(registry)):
            return
        await self._grant(request, repository)
        if known is not None and not known.public and self._access.within(known.at, LOOK_AGAIN):
            await self._admitted_to_private(request, repository)
        elif reference is not None:
            look = self._look(request, repository, reference, accepted=True)
            spawn(look, name=f"look at {registry.name}/{repository}")

    async def _grant(self, request: PullRequest, repository: str) -> None:
        registry = request.registry
        keep = max(self.policy.access_ttl(registry), self.policy.outage_grace(registry))
        await self._access.grant(repository, request.identity, keep=keep)

    def _fresh(self, request: PullRequest) -> float:
        """Half of the time that a proof counts: it is renewed before it ends, and not written at every request."""
        return self.policy.public_ttl(request.registry) / 2

    async def _look(self, request: PullRequest, repository: str, reference: Digest | str, *, accepted: bool) -> None:
        found = await self._publicness.look(request, repository, reference)
        if found is None:
            return
        await self._access.set_public(request.registry.name, repository, public=found)
        if accepted and not found:
            await self._admitted_to_private(request, repository)

    async def _admitted_to_private(self, request: PullRequest, repository: str) -> None:
        identity = await self._on_accepted(request)
        if identity != request.identity:
            await self._grant(replace(request, identity=identity), repository)

    async def refused(self, request: PullRequest, repository: str, status: int) -> None:
        """The registry has just refused this credential for the repository, with 401 or 403."""
        registry, identity = request.registry, request.identity
        if status not in REFUSALS or request.asks == "box":
            return
        if request.asks == "client" and not identity.anonymous and not identity.own:
            await self._access.withdraw(repository, identity)
        known = self._access.publicness(registry.name, repository)
        if known is None or not known.public or not isinstance(route := request.route, ManifestRoute):
            return
        # Anyone might pull it, and this one may not: it has been turned private, or the token is for another one.
        if request.asks == "nobody":  # there is hardly a doubt, and what follows should know
            await self._look(request, repository, route.reference, accepted=False)
        elif "authorization" in request.headers:
            look = self._look(request, repository, route.reference, accepted=False)
            spawn(look, name=f"look at {registry.name}/{repository}")

    async def served(self, request: PullRequest, repository: str, descriptor: Descriptor) -> None:
        """Upstream has served, or offered, this under the repository."""
        registry = request.registry
        public = self._access.is_public(registry.name, repository, self.policy.public_ttl(registry))
        await self._access.add_member(registry.name, repository, descriptor, public=public)

    async def manifest(
        self, request: PullRequest, repository: str, manifest: Descriptor, children: Iterable[Descriptor]
    ) -> None:
        """A manifest that the repository has, and what it refers to."""
        await self._access.add_manifest(request.registry.name, repository, manifest, children)
