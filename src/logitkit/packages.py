"""Packages that only an extra installs. Looking for a package imports nothing, so commands look before they load."""

from __future__ import annotations

import importlib.util

from logitkit.errors import MissingPackageError


def is_installed(package: str) -> bool:
    """Return whether a package could be imported, by the name of its import.

    >>> is_installed("torch"), is_installed("no_such_package")
    (True, False)
    """
    return importlib.util.find_spec(package) is not None


def require(owner: str, extra: str, *packages: str) -> None:
    """Check that packages of an extra are installed.

    Args:
        owner: what needs them, for the error message.
        extra: the extra of logitkit that installs them.
        packages: names under which they are imported.

    Raises:
        MissingPackageError: names the first package that is not installed.

    >>> require("run", "models", "torch")
    """
    for package in packages:
        if not is_installed(package):
            raise MissingPackageError(owner, package, extra)
