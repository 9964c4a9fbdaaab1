"""Log lines of `name=value` pairs, for people and grep; the same go along as fields where the log is JSON."""

import logging
from collections.abc import Mapping


def write(log: logging.Logger, fields: Mapping[str, object], head: str = "") -> None:
    """One line, at level info."""
    if log.isEnabledFor(logging.INFO):
        text = as_text(fields)
        log.info("%s", f"{head} {text}" if head else text, extra={"fields": fields})


def as_text(fields: Mapping[str, object]) -> str:
    """The pairs of a line."""
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if isinstance(value, str) and (not text or " " in text or "=" in text) else text
