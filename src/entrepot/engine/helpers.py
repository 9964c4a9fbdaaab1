"""Credential helpers: programs called `docker-credential-NAME`, by the protocol that docker speaks with them.

The server's name goes to standard input, JSON comes from standard output. What a helper says when it fails is not
passed on: nobody knows what is in it. Runs one, without a shell, and waits for it in the caller's thread.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from entrepot.engine.claims import Claim
from entrepot.engine.secretfiles import Unusable

TIMEOUT: Final = 10.0  # seconds
IDENTITY_TOKEN: Final = "<token>"  # noqa: S105  # stands where the user would: the secret is an identity token
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def program_of(helper: str) -> str:
    """The path of the program. Raises `Unusable`."""
    name = f"docker-credential-{helper}"
    if not _NAME.fullmatch(helper):  # a slash would run any file
        raise Unusable("the name of a credential helper is not one")
    if (program := shutil.which(name)) is None:
        raise Unusable(f"there is no program {name} on the PATH")
    return program


def credential_from(helper: str, servers: Sequence[str], timeout: float = TIMEOUT) -> Claim:
    """The credential for the first of the servers that the helper has one for. Raises `Unusable`."""
    program = program_of(helper)
    for server in servers:
        if (output := _asked(program, server, timeout)) is not None:
            return _claim(helper, server, output)
    raise Unusable(
        f"docker-credential-{helper} has nothing for {' or '.join(servers)}; "
        f"try `printf {servers[0]} | docker-credential-{helper} get` as the user that runs entrepot"
    )


def _asked(program: str, server: str, timeout: float) -> bytes | None:
    """What it prints; None if it fails, which is how it says that it has nothing."""
    name = os.path.basename(program)  # noqa: PTH119
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it can be ended with all that it has started
        )
    except OSError as failure:
        raise Unusable(f"{program}: cannot be run: {(failure.strerror or str(failure)).lower()}") from None
    with process:
        try:
            output, _ = process.communicate(server.encode(), timeout)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise Unusable(f"{name} has not answered within {timeout:g} s") from None
    return output if process.returncode == 0 else None


def _claim(helper: str, server: str, output: bytes) -> Claim:
    try:
        document = json.loads(output)
    except ValueError:
        document = None
    match document:
        case {"Username": str(user), "Secret": str(secret)} if user and secret:
            return Claim("" if user == IDENTITY_TOKEN else user, secret)
        case _:
            raise Unusable(f"docker-credential-{helper} does not say Username and Secret for {server}")
