"""Where clients are asked who they are: identities, verifiers, tokens and challenges put together, for the engine.

Decides nothing of its own but what of it is asked while a registry is away.
"""

from collections.abc import Awaitable, Callable
from math import inf

from entrepot.cache.interface import Records, StoreError
from entrepot.engine.hashing import Busy
from entrepot.engine.identity import Identities, Identity
from entrepot.engine.keys import Keys
from entrepot.engine.messages import Answer, PullRequest, TokenRequest
from entrepot.engine.owntokens import OwnTokens
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.realms import Realms
from entrepot.engine.tokens import Health, Tokens
from entrepot.engine.verifiers import Verifiers
from entrepot.headers import Headers
from entrepot.upstream.client import UpstreamClient


class Reception:
    """Of one process. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        client: UpstreamClient,
        health: Health,
        patience: Patience,
        *,
        key: bytes,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        keys = Keys(key)
        own = OwnTokens(keys.own_tokens, clock)
        self._health, self._patience, self._clock = health, patience, clock
        self._verifiers = Verifiers(records, keys, policy, clock)
        self._identities = Identities(records, keys, own, self._verifiers, clock)
        self.realms = realms = Realms(records)
        service_of = realms.service_of
        self._tokens = Tokens(
            records, client, self._identities, self._verifiers, own, health, patience, clock, service_of
        )

    def reconfigure(self, policy: Policy) -> None:
        """From the next request on."""
        self._verifiers.policy = policy

    async def identify(self, request: PullRequest) -> Identity:
        """Who the request stands for; a password is checked only while the registry is away. Raises `Busy`."""
        authorization = request.headers.get("authorization")
        if authorization and self._health.is_down(request.registry.upstream):
            return await self._identities.identify_offline(request.registry, authorization)
        return self._identities.identify(request.registry.name, authorization)

    def known(self, request: PullRequest) -> Identity:
        """The same without asking or checking anything."""
        return self._identities.identify(request.registry.name, request.headers.get("authorization"))

    async def accepted(self, request: PullRequest) -> Identity:
        """The registry has just admitted the request to a repository that is known not to be public.

        What it was admitted with opens things from now on while the registry is away. The identity, with the account
        if there is one. Raises nothing: what cannot be kept now will be at the next occasion.
        """
        try:
            authorization = request.headers.get("authorization")
            return await self._identities.accepted(request.registry, request.identity, authorization)
        except (Busy, StoreError):
            return request.identity

    async def observe(self, request: PullRequest, status: int, headers: Headers) -> None:
        """The registry's answer to a request for something of a repository. Raises nothing."""
        try:
            await self.realms.observe(request, status, headers)
            if status == 401:
                await self._identities.refused(request.registry, request.headers.get("authorization"))
        except (Busy, StoreError):
            pass  # a challenge is heard again, and so is a refusal

    async def token(self, request: TokenRequest) -> Answer:
        """Raises `UpstreamError`, `Busy`."""
        return await self._tokens.answer(request)

    async def ping(self, request: PullRequest, relay: Callable[[PullRequest], Awaitable[Answer]]) -> Answer:
        """Raises `UpstreamError`, `Busy`, `StoreError`."""

        async def shown() -> bool:
            authorization = request.headers.get("authorization")
            identity = await self._identities.identify_offline(request.registry, authorization)
            return identity.own or bool(identity.account) or self._clock() < identity.until < inf

        async def patiently(one: PullRequest) -> Answer:
            if not self.realms.knows_ping(one):
                return await relay(one)
            return await self._patience.within(one.registry, _of(relay(one)))

        down = self._health.is_down(request.registry.upstream)
        return await self.realms.ping(request, patiently, down=down, shown=shown)


async def _of[T](question: Awaitable[T]) -> T:
    return await question
