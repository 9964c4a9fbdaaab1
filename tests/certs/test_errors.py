import pytest

from entrepot.certs import errors
from entrepot.errors import EntrepotError


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.AuthorityError, errors.CertsError),
        (errors.NoAuthority, errors.AuthorityError),
        (errors.AuthorityExists, errors.AuthorityError),
        (errors.AuthorityExpired, errors.AuthorityError),
        (errors.InvalidSubtree, ValueError),
        (errors.NameNotPermitted, ValueError),
        (errors.TrustError, errors.CertsError),
    ],
)
def test_the_tree_is_as_the_module_says(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)
    assert issubclass(kind, errors.CertsError)
    assert issubclass(kind, EntrepotError)
    assert kind.__name__ in (errors.__doc__ or "")
