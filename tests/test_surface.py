"""The public names are those of the recorded list, and each of them can be imported and is documented."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import logitkit
from fresh import ROOT
from logitkit.registry.pages.surface import packages, page

FILE = ROOT / "docs" / "reference" / "surface.txt"


def test_public_names_are_the_recorded_ones() -> None:
    """A public name that appears or disappears changes the file too: write it again as its first line says."""
    assert page() == FILE.read_text()


@pytest.mark.parametrize("name", list(packages()))
def test_a_package_says_what_is_public(name: str) -> None:
    """``__all__`` is sorted without duplicates, and a public class or function of ours has a docstring."""
    package = importlib.import_module(name)
    public = getattr(package, "__all__", [])
    assert sorted(set(public)) == sorted(public)
    for key in public:
        value = getattr(package, key)
        if getattr(value, "__module__", "").startswith("logitkit") and callable(value):
            assert value.__doc__, f"{name}.{key} has no docstring"


def test_the_top_level_offers_the_pinned_names() -> None:
    """The names of the front door, with the version of the installed distribution."""
    pinned = {"Chain", "Call", "Generation", "Trace", "Spec", "TaskSpec", "Binding", "chain", "generate", "score"}
    assert pinned | {"names", "describe", "hookimpl", "errors", "__version__"} <= set(logitkit.__all__)
    assert logitkit.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = logitkit.scores  # type: ignore[attr-defined]


def test_the_front_door_imports_no_torch() -> None:
    """Importing logitkit and its registry, listing names and reading the version need no torch."""
    code = (
        "import logitkit, logitkit.registry, sys; logitkit.names(), logitkit.__version__, logitkit.errors;"
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
