"""Scripts that run as in an environment without some packages."""

from __future__ import annotations

_SCRIPT = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in set(PACKAGES):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without(*packages: str) -> str:
    """Return the first lines of a script in which importing these packages fails.

    The import system itself is asked, so that what a dependency imports fails as well.
    """
    return _SCRIPT.replace("PACKAGES", repr(packages))
