"""What one look at an origin has found: a probe's outcome, and the status of any answer, in the breaker's terms.

Decides which statuses speak of the server rather than of the request. When to look is decided by `health`.
"""

from typing import Final

from entrepot.upstream.breaker import Finding
from entrepot.upstream.errors import InvalidResponse, UpstreamError
from entrepot.upstream.places import Place
from entrepot.upstream.watch import Probe

TOO_MANY: Final = 429
NOT_SICK: Final = frozenset({501, 505})  # 5xx about the request, not about the server


def is_sick(status: int) -> bool:
    """Whether an answer is the server's trouble."""
    return status >= 500 and status not in NOT_SICK


async def look(probe: Probe, place: Place) -> tuple[Finding, str]:
    """What a probe finds there, and why that is not well."""
    try:
        status = await probe(place.origin + place.path, place.ca)
    except InvalidResponse as e:
        return Finding.SICK, e.cause
    except UpstreamError as e:
        return Finding.DEAD, e.cause
    if status == TOO_MANY:
        return Finding.THROTTLED, "throttles"
    return (Finding.SICK, f"answers with {status}") if is_sick(status) else (Finding.WELL, "")
