"""What is held must not be told from what is not by who may not have it (DESIGN rule 3), nor by the time of a refusal.

Who is not admitted to what is held is refused after two questions upstream: a HEAD, which is free of quotas, and the
GET whose words are passed on. So as many are asked about what is not held before a refusal leaves.
"""

from contextlib import suppress

from entrepot.engine.errands import Errands
from entrepot.engine.messages import PullRequest
from entrepot.engine.upstreams import Upstreams
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest


async def ask_in_vain(
    errands: Errands, upstreams: Upstreams, request: PullRequest, repository: str, reference: Digest | None
) -> None:
    """The question that was not asked before the GET was refused; whatever comes of it. Raises nothing."""
    with suppress(EntrepotError):
        await errands.asking(request, repository, reference, upstreams.head)
