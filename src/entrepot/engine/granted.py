"""What a token service's answer gives (distribution specification: "Token Authentication", both forms of it)."""

import json
from typing import Final

DEFAULT_LIFE: Final = 60.0  # seconds, of a token whose service does not say
MAX_LIFE: Final = 12 * 3600.0  # seconds


def granted(body: object) -> tuple[set[str], float]:
    """The tokens of a service's good answer, and for how many seconds they are good."""
    try:
        document = json.loads(body) if isinstance(body, bytes) else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return set(), 0.0
    found = {token for name in ("token", "access_token") if isinstance(token := document.get(name), str) and token}
    life = document.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or not life > 0:
        life = DEFAULT_LIFE
    return found, min(float(life), MAX_LIFE)
