"""What goes into the engine and what comes out of it."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from entrepot.engine.identity import NOBODY, Identity
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.routes import Route, TokenRoute

type Verdict = Literal[
    "hit", "proved", "revalidated", "miss", "joined", "held", "stale", "pass", "denied", "refused", "failed"
]
"""Why an answer is what it is: `hit` and `proved` (upstream was asked only whether the client may) come from the
store, `revalidated` too, after upstream confirmed the tag; `miss` was fetched; `joined` reads along with a transfer
that was under way; `held` comes from the store because the tag is not to move, or not yet; `stale` could not be
checked; `pass` is upstream's own answer, relayed; `denied` is what this box gives to nobody; `refused` is upstream's
refusal, passed on; `failed` is our own error."""


type InNameOf = Literal["client", "nobody", "box"]
"""With whose rights a registry is asked: the client's own; those that anyone has, with a token issued to nobody; or
those of the box's account, which say nothing of what the client may have."""


@dataclass(slots=True)
class Trace:
    """What a request has cost, for the log."""

    upstream: int = 0  # exchanges it has waited for


@dataclass(frozen=True, slots=True)
class PullRequest:
    """One GET or HEAD of the registry API, parsed and matched against the catalogue."""

    method: Literal["GET", "HEAD"]
    registry: Registry
    route: Route
    headers: Headers
    client: str  # address, for the log
    identity: Identity = NOBODY  # found by the engine from `headers`
    trace: Trace = field(default_factory=Trace, compare=False)
    asks: InNameOf = "client"  # how upstream is asked; who gets the answer is decided by `identity` all the same
    alone: bool = False  # nobody's rights have just not been enough: the box must not lend its own

    def of(self, identity: Identity) -> "PullRequest":
        """The same, now that it is known who asks. `dataclasses.replace` takes four times as long."""
        return PullRequest(self.method, self.registry, self.route, self.headers, self.client, identity, self.trace)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to a token service, by its shape; the service may turn out to be something else."""

    method: Literal["GET", "POST"]
    registry: Registry  # whose clients are sent there
    origin: str  # scheme and host of the real service
    route: TokenRoute
    headers: Headers
    client: str  # address, for the log
    body: bytes = field(default=b"", repr=False)


class Body(Protocol):
    """The bytes of an answer, read once from front to end."""

    @property
    def length(self) -> int | None:
        """Bytes; None when nobody knows before the end."""

    def read_now(self, buffer: memoryview) -> int:
        """Copies the next bytes if they are at hand: how many, 0 at the end, -1 when they must be waited for."""

    async def read(self, buffer: memoryview) -> int:
        """As `read_now`, but waits. Raises `EntrepotError` when the rest will never come."""

    def close(self) -> None:
        """Frees what the body holds. Harmless twice."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets. `headers` are complete but for framing and Date; a HEAD's body is never sent."""

    status: int
    headers: Headers
    body: bytes | Body = b""
    verdict: Verdict = "pass"
    why: str = ""  # for the log and `explain`: one short clause
    admitted: str = ""  # why the client may have it: public, credential, account, or checked with upstream just now
    length: int | None = field(default=None)  # Content-Length of a HEAD's absent body; else derived from the body


class Refused(EntrepotError):
    """Upstream said no: `answer` is to be passed on as it is."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"upstream answered {answer.status}")
        self.answer, self.status = answer, answer.status
