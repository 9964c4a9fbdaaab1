"""Whom a client says it is: a user and the secret that is to prove it.

Decides which secrets are passwords, which people choose, and which are drawn at random by a machine and say by
themselves who it is. Whether a claim is right is for the `verifiers`.
"""

import re
from base64 import b64decode
from binascii import Error
from dataclasses import dataclass, field
from typing import Final

from entrepot.headers import CODEC

TOO_LONG_TO_GUESS: Final = 20  # characters; nobody types so many

# Names under which anybody logs in whose password is a token that says who it is.
_STANDS_FOR_NOBODY: Final = frozenset(
    {
        "oauth2accesstoken",  # gcr.io, pkg.dev
        "_json_key",
        "_json_key_base64",
        "_dcgcloud_token",
        "aws",  # ECR
        "$oauthtoken",  # nvcr.io, quay.io
        "$app",  # quay.io
        "gitlab-ci-token",
        "oauth2",  # GitLab
        "x-access-token",  # ghcr.io
        "00000000-0000-0000-0000-000000000000",  # ACR
        "iamapikey",  # icr.io
        "iambearer",
        "_token",  # cgr.dev
        "token",
        "jwt",
    }
)
# Access tokens by which people log in beside, or instead of, a password. They are drawn at random, several of one
# person are good at the same time, and one that is new says nothing about the others.
_ACCESS_TOKEN: Final = re.compile(
    r"(?:gh[oprsu]_|github_pat_|gl[a-z]{2,8}-|dckr_[op]at_|nvapi-|eyJ|ya29\.|AKC)[\w.~+/=-]{20,}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A user and what is to prove it."""

    user: str  # "" for a token that says by itself who it is
    secret: str = field(repr=False)

    @property
    def bare(self) -> bool:
        """Whether the secret cannot be guessed and says who it is, whatever the name."""
        if not self.user or _ACCESS_TOKEN.fullmatch(self.secret):
            return True
        return self.user.lower() in _STANDS_FOR_NOBODY and len(self.secret) >= TOO_LONG_TO_GUESS


def basic_claim(authorization: str | None) -> Claim | None:
    """The user and password of a Basic credential (RFC 7617); None for anything else."""
    scheme, _, encoded = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = b64decode(encoded.strip(), validate=True).decode(*CODEC)
    except (Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return Claim(user, password) if colon and user and password else None
