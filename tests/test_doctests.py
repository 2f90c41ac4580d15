"""Every example in a docstring runs, and every public class and function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any, is_typeddict

import pytest

import logitkit

NEEDS_ANOTHER_LIBRARY = ("logitkit.adapters.lm_eval", "logitkit.adapters.vllm")  # each imports the library of its name
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(logitkit.__path__, "logitkit.")
    if module.name not in NEEDS_ANOTHER_LIBRARY
)


def public_names() -> dict[str, Any]:
    """Public classes and functions of logitkit, by the shortest name under which a package exports them."""
    found: dict[int, tuple[str, Any]] = {}
    for name in sorted(["logitkit", *MODULES], key=lambda module: (module.count("."), module)):
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            for public in getattr(package, "__all__", ()):
                value = getattr(package, public)
                if inspect.isclass(value) or inspect.isfunction(value):
                    found.setdefault(id(value), (f"{name}.{public}", value))
    return dict(found.values())


@pytest.mark.parametrize("module", ["logitkit", *MODULES])
def test_examples_run(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples in the docstrings of a module give the output that stands there."""
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    loaded = importlib.import_module(module)
    for example in doctest.DocTestFinder(exclude_empty=True).find(loaded, module, module=loaded):
        runner.run(example)
    assert runner.failures == 0, capsys.readouterr().out


def test_every_public_name_has_an_example() -> None:
    """The docstring of a public class or function, or of a method of the class, has a line that begins with >>>."""
    without = []
    for name, value in public_names().items():
        texts = [inspect.getdoc(value) or ""]
        if inspect.isclass(value):
            if issubclass(value, BaseException) or getattr(value, "_is_protocol", False) or is_typeddict(value):
                continue  # errors, protocols and dictionary types are not called by users
            texts += [inspect.getdoc(member) or "" for member in vars(value).values() if callable(member)]
        if not any(">>>" in text for text in texts):
            without.append(name)
    assert without == []
