"""What the supervisor tells a child: one line of JSON on its standard input, and then one for each change.

    {"config": {...}, "index": 0, "sockets": [5, 6], "probe": ["127.0.0.1", 443], "marker": "entrepot-1a2b3c4d"}
    {"reload": {...}}
    {"leave": true}

The configuration is the one in force: ports and paths are those in use, not those somebody wished for. A child answers
with "ready" on its standard output and then "alive" at every second, or ends with `HOPELESS` when it cannot work as it
is configured.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from entrepot.config.model import Config

HOPELESS: Final = 78  # EX_CONFIG of sysexits.h


@dataclass(frozen=True, slots=True)
class Brief:
    """A child's orders."""

    config: Config
    index: int
    """Among the processes of its role, from 0."""
    sockets: tuple[int, ...]
    """Descriptors of the listening sockets it has inherited."""
    probe: tuple[str, int] | None
    """Where the proxy workers listen, as seen from this box; None = nowhere."""
    marker: str
    """Our name in `Via`, to know ourselves by; another one for each start."""

    def to_line(self) -> bytes:
        """The first line a child reads."""
        document = {
            "config": self.config.to_json(),
            "index": self.index,
            "sockets": self.sockets,
            "probe": self.probe,
            "marker": self.marker,
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Brief":
        """The inverse of `to_line`."""
        document = json.loads(line)
        probe = document["probe"]
        return cls(
            Config.from_json(document["config"]),
            document["index"],
            tuple(document["sockets"]),
            None if probe is None else (probe[0], probe[1]),
            document["marker"],
        )


def reload_line(document: Mapping[str, object]) -> bytes:
    """Tells a child of a changed configuration."""
    return json.dumps({"reload": document}).encode() + b"\n"


def leave_line() -> bytes:
    """Tells a child that the box is going to stop: clients are to go elsewhere, who comes is served all the same."""
    return json.dumps({"leave": True}).encode() + b"\n"


def leaves(line: bytes) -> bool:
    """Whether a later line says that."""
    order = json.loads(line)
    return isinstance(order, dict) and order.get("leave") is True


def reloaded(line: bytes) -> Config | None:
    """The configuration a later line brings; None if it says something else."""
    order = json.loads(line)
    return Config.from_json(order["reload"]) if isinstance(order, dict) and "reload" in order else None
