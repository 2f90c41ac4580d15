"""The built-in plugins declare complete and consistent Specs, as data and without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import logitkit
from logitkit.registry import default_registry, discover
from logitkit.registry.discovery import BUILT_IN
from logitkit.registry.laws.examples import example_chain

NAMES = discover(third_party="none").names()
FAMILIES = {plugin: plugin for plugin in BUILT_IN if plugin not in ("tasks", "warpers")}
FAMILIES["warpers"] = "transformers"


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_a_plugin_module_imports_no_torch(plugin: str) -> None:
    """A fresh process that imports the module has imported neither torch nor transformers nor numpy."""
    code = "import sys, importlib; importlib.import_module(sys.argv[1]);"
    code += "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code, f"logitkit.plugins.{plugin}"]).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_is_complete(name: str) -> None:
    """Summary, cost and harm are there for people, and the example is a chain of the processor alone."""
    spec = logitkit.describe(name)
    assert spec.summary.endswith(".") and spec.summary.count(". ") == 0
    assert spec.cost and not spec.cost.endswith(".") and not spec.failure.endswith(".")
    assert spec.family == "transformers" or (spec.formula and spec.failure)
    assert len(example_chain(spec)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_typed_needs_and_prose_speak_of_the_same_parameters(name: str) -> None:
    """A Spec that names models, or a required table, explains them in ``needs``."""
    spec = logitkit.describe(name)
    required = {key for key, field in spec.model.model_fields.items() if field.is_required()}
    for parameter in (*spec.needs_models, *spec.needs_tables):
        assert parameter not in required or any(parameter in sentence for sentence in spec.needs), parameter


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_no_model_declares_no_forwards(name: str) -> None:
    """The processors without extra forwards are those of transformers, the n-grams, the samplers and canonical."""
    spec = logitkit.describe(name)
    families = ("transformers", "ngram", "samplers")
    assert (spec.extra_forwards == "none") == (spec.family in families or name == "canonical")


def test_each_plugin_lists_one_family() -> None:
    """The module ``plugins/X.py`` declares the Specs of one family, and of no other."""
    for plugin in default_registry().plugins:
        if plugin.origin == "logitkit" and plugin.name in FAMILIES:
            assert {spec.family for spec in plugin.specs} == {FAMILIES[plugin.name]}
