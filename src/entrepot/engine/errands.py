"""In whose name a registry is asked, where it need not be the client's (DESIGN rule 3).

1. For anonymous clients of what anyone may read the box asks on its own account, if it has one and is told to
   (`share`): their pulls then count against the account's quota. What that is refused the client asks for itself.
2. A tag that is held and public is checked with nobody's rights, for a client that has nothing better to show.
3. A token of ours, from the time in which the registry was away, is nobody's to the registry. What such a client wants
   and is not held is asked for with nobody's rights: clients of some kinds do not come back with another token.
4. A transfer that a client has begun goes on, when the client's token has ended, with nobody's rights where these are
   enough, else with those of the box.

None of this gives anything to anyone: who may have what comes is decided by `admission`, from what clients were granted
themselves and from what nobody may read. A request that is asked in another name says so, and what the registry answers
to it counts neither as a grant nor as a proof.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from entrepot.engine.admission import Admission
from entrepot.engine.messages import PullRequest, Refused
from entrepot.engine.passes import NoPass
from entrepot.engine.upstreams import TOO_MANY, HeadRefused, Upstreams, trouble
from entrepot.registry.digests import Digest


class Errands:
    """Decides for one process."""

    def __init__(self, upstreams: Upstreams, admission: Admission) -> None:
        self._upstreams, self._admission = upstreams, admission

    def may_share(self, request: PullRequest, repository: str) -> bool:
        """Whether the box's account is for this client too, as far as can be told without asking anyone."""
        registry = request.registry
        if registry.share != "public" or registry.credentials is None:
            return False
        if request.asks == "box" or request.alone or not request.identity.anonymous:
            return False
        if not self._admission.is_public(request, repository):
            return False
        # What is left of the account's quota, when it is little, is for those whose it is.
        return self._upstreams.may(replace(request, asks="box"), "revalidate", request.method)

    async def shared(self, request: PullRequest, repository: str, reference: Digest | str | None) -> PullRequest | None:
        """The request as the box's account asks it for an anonymous client; None: it is not to.

        `reference`: a manifest of the repository, by which can be seen whether anyone may still read it.
        """
        if not self.may_share(request, repository):
            return None
        ours = replace(request, asks="box")
        if not await self._upstreams.passes.usable(ours, "box"):
            return None
        return ours if await self._admission.is_surely_public(request, repository, reference) else None

    async def asking[T](
        self,
        request: PullRequest,
        repository: str,
        reference: Digest | str | None,
        ask: Callable[[PullRequest], Awaitable[T]],
    ) -> tuple[T, PullRequest]:
        """The answer to `ask`, and the request that got it: shared if possible, else in its own name.

        Raises what `ask` raises of the request itself.
        """
        if (ours := await self.shared(request, repository, reference)) is not None:
            try:
                return await ask(ours), ours
            except (Refused, HeadRefused, NoPass):
                pass  # the client is told what the registry has to say to it
        if request.identity.own and request.asks == "client" and (nobody := await self.of_nobody(request)) is not None:
            # What nobody may have it is challenged for, below.
            try:
                return await ask(nobody), nobody
            except (Refused, HeadRefused) as refusal:
                if trouble(refusal):
                    raise
            except NoPass:
                pass
        return await ask(request), request

    async def checking[T](
        self,
        request: PullRequest,
        repository: str,
        reference: Digest | str,
        ask: Callable[[PullRequest], Awaitable[T]],
    ) -> tuple[T, PullRequest]:
        """The same for a question that costs little: it is shared only when it is throttled."""
        quota = self._upstreams.may(request, "revalidate", "HEAD") or not self.may_share(request, repository)
        if quota and not request.identity.own:
            try:
                return await ask(request), request
            except (Refused, HeadRefused) as refusal:
                if refusal.status != TOO_MANY or (ours := await self.shared(request, repository, reference)) is None:
                    raise
                return await ask(ours), ours
        return await self.asking(request, repository, reference, ask)

    async def of_nobody(self, request: PullRequest) -> PullRequest | None:
        """The same question with nobody's rights; None if these were refused a moment ago."""
        asked = replace(request, asks="nobody")
        return asked if await self._upstreams.passes.usable(asked, "nobody") else None

    def spare(self, request: PullRequest, repository: str) -> PullRequest | None:
        """In what other name a transfer may go on that this client's own token has begun."""
        if request.asks != "client" or "authorization" not in request.headers:
            return None
        if self._admission.is_public(request, repository):
            return replace(request, asks="nobody")
        return replace(request, asks="box") if request.registry.credentials is not None else None
