"""The configuration: one `entrepot.toml`, every key optional, `ENTREPOT_SECTION_KEY` variables on top.

What it does: finds the file, reads it, checks every name and value, says where each came from, hands the result on as
frozen dataclasses. What it does not do: look at anything the values point to (files, disks, interfaces, registries);
decide what a value means for the work. Rules:

1. A name nobody knows is a mistake, with the nearest known one. No key is silently ignored.
2. A mistake is one line: place, dotted key, value, what is allowed. All of them are reported, not just the first.
3. Every value has one unit and one way back to text (`values.py`, `kinds.py`); a bare number is never a time or size.
4. No secrets: they are named by file or helper, so the whole configuration may be shown and logged.
5. Relative paths are relative to the file they are written in; what leaves this room is absolute.

To add a key: `model.py`, and the example `entrepot.toml`, whose defaults a test compares.
"""

from entrepot.config.build import Loaded
from entrepot.config.errors import ConfigError
from entrepot.config.load import load
from entrepot.config.model import (
    Advertise,
    Certs,
    Config,
    Dns,
    Hosted,
    Listen,
    Log,
    Policy,
    RegistryEntry,
    Store,
    Upstream,
    Web,
)
from entrepot.config.registries import Credentials, DockerConfig, Helper, PasswordFile
from entrepot.config.values import Endpoint, Share, Size, in_bytes

__all__ = [
    "Advertise",
    "Certs",
    "Config",
    "ConfigError",
    "Credentials",
    "Dns",
    "DockerConfig",
    "Endpoint",
    "Helper",
    "Hosted",
    "Listen",
    "Loaded",
    "Log",
    "PasswordFile",
    "Policy",
    "RegistryEntry",
    "Share",
    "Size",
    "Store",
    "Upstream",
    "Web",
    "in_bytes",
    "load",
]
