"""What can go wrong with keys and trust stores, by whose fault it is.

EntrepotError
  CertsError
    AuthorityError       what is in the CA directory cannot be used
      NoAuthority        nothing is there yet
      AuthorityExists    something is there already
      AuthorityExpired   it has run out, or the clock is wrong
    InvalidSubtree       no name an authority can be constrained to (also a ValueError)
    NameNotPermitted     a name outside the constraints, or no name at all (also a ValueError)
    TrustError           a trust store, or a certificate meant for it, that cannot be used
"""

from entrepot.errors import EntrepotError


class CertsError(EntrepotError):
    """Base of this room's errors."""


class AuthorityError(CertsError):
    """The CA directory holds something that cannot be used."""


class NoAuthority(AuthorityError):
    """The CA directory holds no CA."""


class AuthorityExists(AuthorityError):
    """There is one already, or a rotation is under way already."""


class AuthorityExpired(AuthorityError):
    """The authority has run out, or has not begun."""


class InvalidSubtree(CertsError, ValueError):
    """There is no DNS subtree to make an authority for."""


class NameNotPermitted(CertsError, ValueError):
    """A name no leaf can be issued for."""


class TrustError(CertsError):
    """A trust store or a certificate for it cannot be used."""
