"""What holds for all tests."""

import sys
from pathlib import Path

from hypothesis import settings

# The root of the repository holds a link called `dns`, and `python -m` puts the root first on the path, where it hides
# dnspython. At the end it serves `tests.*` and hides nothing.
_ROOT = str(Path(__file__).resolve().parents[1])
sys.path[:] = [entry for entry in sys.path if entry not in {"", _ROOT}] + [_ROOT]

# A deadline for each example is an assertion on time; the test's own timeout is enough.
settings.register_profile("entrepot", deadline=None)
settings.load_profile("entrepot")
