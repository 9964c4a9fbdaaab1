"""What a worker and the fetching process say to each other: one JSON object a line, over a Unix socket.

A connection is for one blob. The worker begins with an order, and may add to it:

    {"digest": "sha256:…", "size": 123 | null, "source": {…}, "others": [{…}]}
    {"waiting": true | false}          whether any client of the worker waits for it; true to begin with
    {"offer": {…}}                     another source, in case the first is refused half-way

The fetching process tells what happens, and ends the connection after `done` or `failed`:

    {"opened": 123 | null, "accepted": true | false}
                                       bytes are sure to come; whether the order's own source brings them
    {"at": 100}                        so many bytes may be given to clients
    {"done": 123}                      all are here and verified
    {"failed": {…}}                    what ended it

Or it asks only whether upstream gives something: `{"ask": {…}}`, answered by `{"given": true}` or `{"failed": {…}}`.

Or it is for a share of the bandwidth: `{"pace": "quay.io", "bytes": 65536}`, answered by `{"granted": 4096}`, and so
on. Sources and failures are documents of those who made them; credentials are in them, so the socket is for its owner
only.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 4 << 20  # bytes of a line: a refusal carries upstream's whole answer

type Document = Mapping[str, object]


async def hear(reader: asyncio.StreamReader) -> Document | None:
    """The next line; None at the end, or when the other side has died in the middle of one."""
    try:
        line = await reader.readline()
        said = json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def say(writer: asyncio.StreamWriter, document: Document) -> None:
    """Writes a line; the other side may be gone, which is noticed when listening."""
    if not writer.is_closing():
        writer.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
