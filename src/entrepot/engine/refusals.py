"""How a token service refuses a wrong password, kept so that it can be said in the same words while it is away.

The words of one refusal are used for another one's: what could name who was refused is not kept.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from entrepot.cache.interface import Records
from entrepot.engine.asking import Asking
from entrepot.engine.messages import Answer, TokenRequest
from entrepot.headers import Headers
from entrepot.registry import oci_errors

MAX_BODY: Final = 4 << 10  # bytes
KEPT_FIELDS: Final = frozenset({"content-type", "www-authenticate", "docker-distribution-api-version"})
NOTED_AGAIN: Final = 3600.0  # seconds


class Refusals:
    """In the records. `clock` gives epoch seconds."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._noted: dict[str, float] = {}

    async def note(self, request: TokenRequest, asking: Asking, answer: Answer) -> None:
        """The service has just refused a password. Raises `StoreError`."""
        key, now = _key(request), self._clock()
        if now - self._noted.get(key, -NOTED_AGAIN) < NOTED_AGAIN or asking.claim is None:
            return
        if not isinstance(answer.body, bytes) or len(answer.body) > MAX_BODY:
            return
        fields = [[name, value] for name, value in answer.headers if name.lower() in KEPT_FIELDS]
        text = answer.body.decode("utf-8", "replace")
        if text.encode() != answer.body:
            return
        said = "\n".join([text, *(value for _, value in fields)]).lower()
        if any(word.lower() in said for word in (asking.claim.user, asking.claim.secret) if word):
            return
        await self._records.put(key, {"status": answer.status, "fields": fields, "body": text})
        self._noted[key] = now

    def answer(self, request: TokenRequest) -> Answer:
        """A refusal in the service's words, or in the standard's when it was never heard to refuse."""
        match self._records.get(_key(request)):
            case {"status": int(status), "fields": list(fields), "body": str(body)}:
                kept = [(str(name), str(value)) for name, value in fields]
                content = body.encode()
            case _:
                status, kept = 401, [("Content-Type", oci_errors.CONTENT_TYPE)]
                content = oci_errors.error_body(oci_errors.UNAUTHORIZED, "incorrect username or password")
        return Answer(status, Headers([*kept, ("X-Entrepot", "stale")]), content, "refused", "password is not right")


def _key(request: TokenRequest) -> str:
    return f"refusal/{request.registry.name}/{urlsplit(request.origin).netloc}"
