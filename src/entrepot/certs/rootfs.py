"""Files inside another root directory, as a process that is chrooted there would see them.

An image's /etc/ssl/cert.pem may well be a link to "/etc/ssl/certs/ca-certificates.crt": opened from outside, that is
the host's own bundle. Nothing of a tree is written before its path has gone through here.
"""

import errno
from pathlib import Path, PurePosixPath
from typing import Final

from entrepot.certs.errors import TrustError

# What Linux allows in one path (MAXSYMLINKS).
_MAX_LINKS: Final = 40


def inside(root: Path, path: str | PurePosixPath, *, follow: bool = False) -> Path:
    """Where the absolute `path` of the tree is on this host, with the links of its folders resolved within the tree.

    With `follow`, also a link that is the last part. What does not exist yet is taken as it is called. Raises
    `TrustError` when links go round in circles.
    """
    todo = list(reversed(PurePosixPath(path).parts[1:]))
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            # ".." of the root is the root: that is what keeps a link inside.
            del done[-1:]
            continue
        target = _link(root.joinpath(*done, part)) if todo or follow else None
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise TrustError(f"{root}: the links of {str(path)!r} go round in circles")
        if target.is_absolute():
            done.clear()
        todo.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return root.joinpath(*done)


def _link(path: Path) -> PurePosixPath | None:
    try:
        return PurePosixPath(path.readlink())
    except OSError as failure:
        if failure.errno in {errno.EINVAL, errno.ENOENT, errno.ENOTDIR}:
            return None
        raise TrustError(f"{path}: {failure.strerror}") from failure


def content(path: Path) -> bytes:
    """What a file says; empty when there is none. Raises `TrustError` when it cannot be read."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as failure:
        raise TrustError(f"{path}: {failure.strerror}") from failure
