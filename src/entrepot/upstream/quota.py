"""How much a registry still lets us ask: what its answers say of it, and who may spend what is left.

Reads the fields registries send and keeps, for each registry and credential, the last word on it. Decides whether a
request that nobody waits for may be made; sends nothing itself, and never holds a client's miss back.

1. A client's miss always goes upstream. A tag that is held is no longer checked when `REVALIDATE_RESERVE` of the
   quota is left, nothing is fetched ahead of need from `PREFETCH_RESERVE` on, and neither is done between a 429 and
   the time upstream gives (DESIGN rule 6).
2. What counts differs. Where the catalogue says that HEADs are free (Docker Hub), only GETs of manifests count;
   elsewhere every request is taken to. What does not count is held back by a 429 only.
3. A budget belongs to whom upstream names (`docker-ratelimit-source`), else to the credential: Docker Hub's tokens
   change every few minutes, and all of them draw on the same account or address. A 429 that names nobody and no quota
   is a limit by address (Quay, Docker Hub's protection against abuse) and holds for the whole registry.
4. Nothing here fails on what upstream sends: a field that cannot be read says nothing.
5. What was said at a time that has not come yet (the clock was set back) says nothing either: else it would stand until
   that time comes again.
"""

import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.entries import HEAD_IS_FREE
from entrepot.registry.routes import ManifestRoute, Route

type Purpose = Literal["miss", "revalidate", "prefetch"]
type Key = tuple[str, str]
"""A registry's name, and what stands for a credential of it; never the credential."""

REVALIDATE_RESERVE: Final = 0.05  # of the limit: kept for misses
PREFETCH_RESERVE: Final = 0.2  # of the limit: kept for misses and checks
ASSUMED_LIMIT: Final = 100  # where upstream says only what is left; what Docker Hub gives the anonymous
ASSUMED_PAUSE: Final = 60.0  # seconds after a 429 that does not say how long
TRUSTED: Final = 900.0  # seconds that "little is left" stands when nothing says when there is more: then one may look
MAX_PAUSE: Final = 21_600.0  # seconds; the longest window known is Docker Hub's, and a wrong date must not stop us long
MAX_KNOWN: Final = 1024  # budgets, and credentials they belong to; the least recently seen go first

THROTTLED: Final = frozenset({429, 503})  # the second only when it comes with Retry-After
_EPOCH: Final = 1_000_000_000  # a "reset" from here on is a date (GitLab, GitHub), not a number of seconds
_MAX_FIELD: Final = 1024  # characters of a field that are looked at
_MAX_ITEMS: Final = 16
_ITEM: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+")++')
_PART: Final = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*+")++')
_NUMBER: Final = re.compile(r"(\d{1,15})(?:\.\d{0,15})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one answer says; None where it says nothing."""

    limit: int | None = None  # requests in a window
    remaining: int | None = None
    window: float | None = None  # seconds
    reset: float | None = None  # seconds from the answer until there is more

    def __bool__(self) -> bool:
        return self.limit is not None or self.remaining is not None


def parse_budget(headers: Headers, now: float) -> Budget:
    """The quota fields of an answer that came at `now` (epoch seconds).

    Understood are `RateLimit-Limit`, `-Remaining` and `-Reset`, also with `X-` before, with or without a window
    (`100;w=21600`), and both generations of `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers,
    up to 07 and since). Where several quotas are told, the one that runs out first counts.
    """
    told = [budget for budget in (_classic(headers), *_modern(headers)) if budget]
    found = min(told, key=lambda budget: _or(budget.remaining, sys.maxsize), default=Budget())
    if found.reset is None:
        return found
    from_now = found.reset - now if found.reset >= _EPOCH else found.reset
    return replace(found, reset=min(max(from_now, 0.0), MAX_PAUSE))


def parse_retry_after(headers: Headers, now: float) -> float | None:
    """Seconds from `now` (epoch seconds) until upstream wants to hear from us again, at most `MAX_PAUSE`."""
    value = headers.get("retry-after", "")[:_MAX_FIELD].strip()
    if (seconds := _number(value)) is not None:
        return min(float(seconds), MAX_PAUSE)
    try:
        date = parsedate_to_datetime(value)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(at - now, 0.0), MAX_PAUSE)


def counts(registry: Registry, method: str, route: Route) -> bool:
    """Whether a request is taken off the quota, as far as is known."""
    return HEAD_IS_FREE not in registry.quirks or (method == "GET" and isinstance(route, ManifestRoute))


@dataclass(slots=True)
class _Account:
    """One budget as it was last seen."""

    budget: Budget
    seen: float
    paused: float = 0.0  # until then nobody is to be bothered
    paused_at: float = 0.0  # when that was said

    def is_paused(self, now: float) -> bool:
        return self.paused_at <= now < self.paused

    def pause(self, seconds: float, now: float) -> None:
        """Not shorter than upstream has said before."""
        until = now + seconds
        self.paused = max(self.paused, until) if self.is_paused(now) else until
        self.paused_at = now

    def short(self, reserve: float, now: float) -> bool:
        """Whether what is left has to be kept for others. What was seen long ago says nothing of now."""
        remaining = self.budget.remaining
        if remaining is None or not 0 <= now - self.seen < self._stands():
            return False
        return remaining <= reserve * _or(self.budget.limit, ASSUMED_LIMIT)

    def _stands(self) -> float:
        if self.budget.reset is not None:
            return self.budget.reset
        return min(_or(self.budget.window, TRUSTED), TRUSTED)

    def shown(self, now: float) -> dict[str, int]:
        """Whole numbers; dates are epoch seconds. Empty when its window is over."""
        budget, numbers = self.budget, dict[str, int]()
        if budget and 0 <= now - self.seen < _or(budget.reset, _or(budget.window, TRUSTED)):
            told = (("limit", budget.limit), ("remaining", budget.remaining))
            numbers = {name: value for name, value in told if value is not None}
            if budget.reset is not None:
                numbers["reset"] = int(self.seen + budget.reset)
            numbers["seen"] = int(self.seen)
        return numbers


class Quotas:
    """The budgets of this process, as upstream's answers tell them. Times are epoch seconds."""

    def __init__(self, max_known: int = MAX_KNOWN) -> None:
        self._max_known = max_known
        self._accounts: OrderedDict[Key, _Account] = OrderedDict()
        self._owners: OrderedDict[Key, Key] = OrderedDict()  # credential -> whose budget it draws on

    def observe(self, key: Key, headers: Headers, status: int, now: float) -> None:
        """Takes in an answer to a request made with `key`."""
        budget = parse_budget(headers, now)
        source = headers.get("docker-ratelimit-source", "")[:_MAX_FIELD].strip()
        retry_after = parse_retry_after(headers, now) if status in THROTTLED else None
        throttled = status == 429 or retry_after is not None
        if not budget and not throttled:
            return
        owner = self._owner(key, source)
        if throttled and not budget and not source:
            owner = _everybody(key[0])
        account = self._account(owner, now)
        if budget or not account.budget:
            account.budget, account.seen = budget, now
        if throttled:
            account.pause(_or(retry_after, _or(budget.reset, ASSUMED_PAUSE)), now)

    def may(self, key: Key, purpose: Purpose, now: float, *, counted: bool = True) -> bool:
        """Whether a request for `purpose` may be made with `key`; `counted` as `counts` says of it."""
        if purpose == "miss":
            return True
        own = self._accounts.get(self._owners.get(key, key))
        everybody = self._accounts.get(_everybody(key[0]))
        if any(account.is_paused(now) for account in (own, everybody) if account):
            return False
        reserve = PREFETCH_RESERVE if purpose == "prefetch" else REVALIDATE_RESERVE
        return own is None or not counted or not own.short(reserve, now)

    def snapshot(self, now: float) -> dict[str, dict[str, int]]:
        """By registry: `limit`, `remaining`, `reset`, `paused` and `seen`, as far as they are known.

        Of several budgets the one of which most is known, and of those the one seen last. Dates are epoch seconds.
        """
        best: dict[str, dict[str, int]] = {}
        paused: dict[str, int] = {}
        for (registry, _), account in self._accounts.items():
            numbers = account.shown(now)
            if account.is_paused(now):
                paused[registry] = max(int(account.paused), paused.get(registry, 0))
            if _telling(numbers) >= _telling(best.get(registry, {})):
                best[registry] = numbers
        return {
            registry: {**numbers, **({"paused": paused[registry]} if registry in paused else {})}
            for registry, numbers in best.items()
            if numbers or registry in paused
        }

    def __len__(self) -> int:
        return len(self._accounts)

    def _owner(self, key: Key, source: str) -> Key:
        if source:
            self._owners[key] = key[0], f"source {source}"
            self._owners.move_to_end(key)
            if len(self._owners) > self._max_known:
                self._owners.popitem(last=False)
        return self._owners.get(key, key)

    def _account(self, owner: Key, now: float) -> _Account:
        account = self._accounts.setdefault(owner, _Account(Budget(), now))
        self._accounts.move_to_end(owner)
        if len(self._accounts) > self._max_known:
            self._accounts.popitem(last=False)
        return account


def _everybody(registry: str) -> Key:
    return registry, "everybody"


def _telling(numbers: dict[str, int]) -> tuple[bool, int, int]:
    return "remaining" in numbers, len(numbers), numbers.get("seen", 0)


def _or[T](value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _number(text: str) -> int | None:
    found = _NUMBER.fullmatch(text.strip())
    return int(found[1]) if found else None


def _classic(headers: Headers) -> Budget:
    limits, remaining, reset = (_numbers(headers, kind) for kind in ("limit", "remaining", "reset"))
    limit = limits[0][0] if limits else None
    window = next((seconds for number, seconds in limits if number == limit and seconds is not None), None)
    return Budget(
        limit, remaining[0][0] if remaining else None, _seconds(window), _seconds(reset[0][0] if reset else None)
    )


def _numbers(headers: Headers, kind: str) -> list[tuple[int, int | None]]:
    """Those of `RateLimit-<kind>`, each with its window in seconds."""
    items = [item for name in ("ratelimit", "x-ratelimit") for item in _items(headers.get_all(f"{name}-{kind}"))]
    return [(number, _number(more.get("w", ""))) for item, more in items if (number := _number(item)) is not None]


def _seconds(number: int | None) -> float | None:
    return None if number is None else float(number)


def _modern(headers: Headers) -> Iterator[Budget]:
    """From `RateLimit`, each quota with its policy."""
    policies: dict[str, tuple[int | None, float | None]] = {}
    for item, more in _items(headers.get_all("ratelimit-policy")):
        policies[item] = _or(_number(more.get("q", "")), _number(item)), _seconds(_number(more.get("w", "")))
    together: dict[str, int] = {}  # up to draft 07: limit=100, remaining=50, reset=5
    for item, more in _items(headers.get_all("ratelimit")):
        name, equals, value = item.partition("=")
        if equals and (number := _number(value)) is not None:
            together.setdefault(name.strip().lower(), number)
        elif not equals and (remaining := _number(more.get("r", ""))) is not None:
            limit, window = policies.get(item, (None, None))
            yield Budget(limit, remaining, window, _seconds(_number(more.get("t", ""))))
    if together:
        limit = together.get("limit")
        window = next((seconds for quota, seconds in policies.values() if quota == limit), None)
        yield Budget(limit, together.get("remaining"), window, _seconds(together.get("reset")))


def _items(values: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a list field and their parameters, as RFC 9651 writes them, taken loosely."""
    for item in _ITEM.findall(",".join(values)[:_MAX_FIELD])[:_MAX_ITEMS]:
        head, *rest = _PART.findall(item) or [""]
        pairs = (part.partition("=") for part in rest)
        yield head.strip(), {name.strip().lower(): value.strip() for name, _, value in pairs}
