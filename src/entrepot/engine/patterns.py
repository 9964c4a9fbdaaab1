"""Names of images with stars in them, as the configuration and `entrepot hold` have them.

REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY; a star stands for any text, slashes included, and nothing else is
special. A name without a tag means the repository, and so whatever is in it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> re.Pattern[str]:
    """A pattern in which only the star is special."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


def tag_part(pattern: str) -> str:
    """Of a pattern of tags; "" of one of repositories. A colon before the last slash parts a port."""
    return pattern[pattern.rfind("/") + 1 :].partition(":")[2]


def fits(pattern: str, registry: str, repository: str, tag: str) -> bool:
    """Whether it means this tag."""
    name = f"{registry}/{repository}"
    return matcher(pattern).fullmatch(f"{name}:{tag}" if tag_part(pattern) else name) is not None


def fits_repository(pattern: str, registry: str, repository: str) -> bool:
    """Whether it means the repository, or tags of it."""
    tag = tag_part(pattern)
    whole = pattern.removesuffix(f":{tag}") if tag else pattern
    return matcher(whole).fullmatch(f"{registry}/{repository}") is not None


def first_fit(patterns: Iterable[str], registry: str, repository: str, tag: str) -> str:
    """The first that means this tag; "" if none does."""
    return next((one for one in patterns if fits(one, registry, repository, tag)), "")
