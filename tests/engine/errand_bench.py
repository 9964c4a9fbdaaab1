"""An engine whose box has an account at a registry with accounts, and clients of every kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tests.engine.test_engine import ACCEPT, Clock, content
from tests.fakes.guarded import NOBODY, GuardedRegistry, guarded
from tests.fakes.images import Image, push_image
from tests.fakes.tokens import basic

from entrepot.cache.interface import BlobStore
from entrepot.cache.memory import MemoryBlobs, MemoryRecords
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Answer, PullRequest, TokenRequest
from entrepot.engine.policy import Policy
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.credentials import PasswordFile
from entrepot.registry.digests import Digest
from entrepot.registry.routes import TokenRoute, parse_target
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.remote import Remote
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.transfers import Transfers

PUBLIC, PRIVATE = "org/public", "org/private"
BACKGROUND = ("transfer", "prefetch", "look", "admit", "check", "fill", "patience registry")
BIG = bytes(range(256)) * 1500  # bytes of a layer that comes in several pieces
type Field = tuple[str, str]


@dataclass
class Bench:
    registry: GuardedRegistry
    engine: Engine
    known: Registry
    clock: Clock
    records: MemoryRecords
    blobs: BlobStore
    password: Path
    public: Image
    private: Image
    policy: Policy
    tokens: dict[tuple[str, str], Field] = field(default_factory=dict)

    async def ask(self, method: str, target: str, *headers: Field) -> Answer:
        route = parse_target(target)
        assert route is not None
        verb: Literal["GET", "HEAD"] = "HEAD" if method == "HEAD" else "GET"
        request = PullRequest(verb, self.known, route, Headers([ACCEPT, *headers]), "192.0.2.1")
        return await self.engine.answer(request)

    async def get(self, target: str, *headers: Field) -> tuple[Answer, bytes]:
        answer = await self.ask("GET", target, *headers)
        body = await content(answer)
        await settled()
        return answer, body

    async def log_in(self, user: str, repository: str, password: str | None = None) -> Field:
        """The token that a client gets by us, as clients do; of `NOBODY` without a password."""
        route = parse_target(f"/token?service=guarded&scope=repository:{repository}:pull")
        assert isinstance(route, TokenRoute)
        given = [] if user == NOBODY else [basic(user, password or f"{user}-password")]
        request = TokenRequest("GET", self.known, self.registry.url, route, Headers(given), "192.0.2.1")
        answer = await self.engine.token(request)
        assert isinstance(answer.body, bytes)
        assert answer.status == 200, answer
        return "Authorization", f"Bearer {json.loads(answer.body)['token']}"

    async def pull(self, image: Image, repository: str, *headers: Field) -> list[Answer]:
        """All of it, by tag."""
        targets = [manifest(repository, "1"), manifest(repository, image.manifest)]
        targets += [blob(repository, digest) for digest in (image.config, *image.layers)]
        return [(await self.get(target, *headers))[0] for target in targets]

    def goes_private(self, repository: str) -> None:
        self.registry.readers[repository] = {"box"}

    def known_public(self, repository: str) -> object:
        return (self.records.get(f"public/registry.test/{repository}") or {}).get("public")

    def grants(self) -> list[str]:
        return [key for key, _ in self.records.scan("grant/")]

    def reconfigure(self, **changes: object) -> None:
        self.policy = replace(self.policy, **changes)  # type: ignore[arg-type]
        self.engine.reconfigure(self.policy)


def manifest(repository: str, reference: object) -> str:
    return f"/v2/{repository}/manifests/{reference}"


def blob(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/blobs/{digest}"


async def settled() -> None:
    """Nothing of the engine runs in the background any more."""
    async with asyncio.timeout(20):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith(BACKGROUND)]:
            await asyncio.wait(tasks)


@asynccontextmanager
async def errand_bench(
    folder: Path,
    *,
    share: str | None = None,
    account: bool = True,
    store: BlobStore | None = None,
    remote: Remote | None = None,
) -> AsyncIterator[Bench]:
    """`PUBLIC` is for anyone, `PRIVATE` for ann and the box's account. `remote`: where it has things fetched."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # as under mitmproxy's master
    password = folder / "password"
    password.write_text("box-password\n")
    password.chmod(0o600)
    place = PasswordFile("box", password) if account else None
    async with guarded() as registry:
        registry.readers = {PUBLIC: {NOBODY}, PRIVATE: {"ann", "box"}}
        public = push_image(registry, PUBLIC, layers=(b"p" * 3000, BIG))
        private = push_image(registry, PRIVATE, layers=(b"s" * 3000, BIG[::-1]))
        entry = RegistryOverride("registry.test", upstream=registry.url, credentials=place, share=share)
        known = Catalogue([]).with_overrides([entry]).registries()[0]
        clock = Clock()
        records, blobs = MemoryRecords(clock), store or MemoryBlobs(clock)
        settings = ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0)
        client = UpstreamClient(settings, Resolver([], lambda: (), clock=clock))
        transfers = Transfers(blobs, remote=remote)
        policy = Policy(tag=60.0, access=300.0, prefetch=False)
        engine = Engine(blobs, records, client, transfers, key=b"k" * 32, policy=policy, clock=clock)
        yield Bench(registry, engine, known, clock, records, blobs, password, public, private, policy)
        await settled()
        await transfers.close()
        await engine.close()
        await client.aclose()
