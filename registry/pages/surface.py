"""The public names of all packages, as recorded in ``docs/reference/surface.txt``.

python -m logitkit.registry.pages.surface docs/reference/surface.txt

A name is public when the ``__all__`` of a package lists it. A test compares the file with the packages, so that a
public name appears or disappears only together with a change of the file.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import logitkit

HEADING = "# Public names, written by python -m logitkit.registry.pages.surface docs/reference/surface.txt\n"


def packages() -> Iterator[str]:
    """Yield the import names of logitkit and of its packages, outer packages first."""
    yield logitkit.__name__
    for found in pkgutil.walk_packages(logitkit.__path__, f"{logitkit.__name__}."):
        if found.ispkg:
            yield found.name


def surface() -> list[str]:
    """Return every public name with its package, sorted.

    Raises:
        AttributeError: a package lists a name in ``__all__`` that it does not have.

    >>> "logitkit.registry.laws.check_processor" in surface()
    True
    """
    names = []
    for name in packages():
        package = importlib.import_module(name)
        for public in getattr(package, "__all__", ()):
            getattr(package, public)
            names.append(f"{name}.{public}")
    return sorted(names)


def page() -> str:
    """Return the content of the file."""
    return HEADING + "\n".join(surface()) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8") if len(sys.argv) > 1 else print(page(), end="")
