"""`ENTREPOT_SECTION_KEY` variables override the keys of the plain sections, by the same rules as the file.

Lists are comma separated. An empty variable counts as not set, which is what `${VAR:-}` in a compose file yields. A
variable that looks like ours but names no key is a mistake, like an unknown key in the file. Not ours although they
look so: the variables Kubernetes makes for a service called `entrepot` or `entrepot-...`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from entrepot.config.build import Draft, Place, Problems, Raw, nearest
from entrepot.config.model import SECTIONS, kinds_of

PREFIX: Final = "ENTREPOT_"
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES: Final = re.compile(
    r"ENTREPOT(_.*)?(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def variables() -> dict[str, tuple[str, str]]:
    """Every variable that counts, with its section and key."""
    return {
        f"{PREFIX}{section}_{key}".upper(): (section, key)
        for section, table in SECTIONS.items()
        for key in kinds_of(table)
    }


def overlay(draft: Draft, environ: Mapping[str, str], base: Path, problems: Problems) -> None:
    """Puts the variables of `environ` over `draft`; relative paths in them are relative to `base`."""
    known = variables()
    for name, text in environ.items():
        if not name.startswith(PREFIX) or not text or _KUBERNETES.fullmatch(name):
            continue
        place = Place(name, float("inf"), base)
        if name not in known:
            problems.add(place, _guess(name), f"unknown key{nearest(name, known)}")
            continue
        section, key = known[name]
        value = kinds_of(SECTIONS[section])[key].from_text(text.strip())
        draft.sections.setdefault(section, {})[key] = Raw(value, place)


def _guess(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("_", ".", 1)
