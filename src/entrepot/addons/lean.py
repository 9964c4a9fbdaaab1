"""mitmproxy without the forty addons of its own tools.

`mitmproxy.addons` imports every one of them, ldap3 and a parser generator among them: half of a worker's start-up and
20 MB of its memory, for things we never add. Here the package is put in place without running its `__init__`; its
modules are then found one by one, as they are asked for. Import this before anything of mitmproxy.
"""

import importlib.machinery
import sys
from importlib.util import find_spec, module_from_spec

PACKAGE = "mitmproxy.addons"


def prepare() -> None:
    """Does nothing if mitmproxy's addons have been imported already."""
    if PACKAGE in sys.modules:
        return
    spec = find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{PACKAGE} is not a package any more: this version of mitmproxy is not one we know")
    bare = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    bare.submodule_search_locations = spec.submodule_search_locations
    sys.modules[PACKAGE] = module_from_spec(bare)


prepare()
