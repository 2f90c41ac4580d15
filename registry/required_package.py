"""Packages that a processor needs and that only an extra installs, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from logitkit.errors import MissingPackageError, ParameterError
from logitkit.packages import is_installed
from logitkit.registry.declaration_checks import shown


@dataclass(frozen=True, kw_only=True)
class RequiredPackage:
    """A package that a processor needs and that only an extra of its distribution installs.

    Attributes:
        name: the name under which the package is imported.
        extra: the extra of the plugin's distribution that installs the package.
        values: values of parameters with which the package is needed, such as ``{"align": "mined"}``; of a parameter
            that is a list, one of its items. Empty: the package is always needed.

    >>> package = RequiredPackage(name="rapidfuzz", extra="ensembles", values={"align": "mined"})
    >>> package.is_needed({"align": "mined"}), package.is_needed({"align": ["gac", "mined"]})
    (True, True)
    >>> package.is_needed({"align": "gac"})
    False
    """

    name: str
    extra: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def is_needed(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether a processor with these parameters needs the package."""
        return all(_holds(parameters.get(name), value) for name, value in self.values.items())


def require_packages(owner: str, plugin: str, packages: Iterable[RequiredPackage], values: Mapping[str, Any]) -> None:
    """Check that the packages are installed that a processor needs; nothing is imported.

    Args:
        owner: the name of the processor.
        plugin: the distribution that offers it, with its version; "" for logitkit.
        packages: from `Spec.needs_packages`.
        values: all parameters of the processor.

    Raises:
        MissingPackageError: names the first package that is not installed, and the extra that installs it.
    """
    for package in packages:
        if package.is_needed(values) and not is_installed(package.name):
            raise MissingPackageError(owner, package.name, package.extra, plugin.partition(" ")[0] or "logitkit")


def package_tuple(owner: str, value: Any) -> tuple[RequiredPackage, ...]:
    """Return a tuple of packages, given as a tuple or a list.

    Raises:
        ParameterError: any other value.
    """
    if not isinstance(value, (tuple, list)) or not all(isinstance(item, RequiredPackage) for item in value):
        raise ParameterError(owner, "needs_packages", "a tuple of RequiredPackage", shown(value))
    return tuple(value)


def _holds(given: Any, value: Any) -> bool:
    """Return whether a parameter is a value, or a list with this value."""
    return bool(given == value or (isinstance(given, (list, tuple)) and value in given))
