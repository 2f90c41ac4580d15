"""Every example runs; here on a tiny model, so that it takes a moment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from logitkit.registry.laws import tiny_model, tiny_tokenizer

FOLDER = Path(__file__).parents[1] / "examples"
OURS = [
    "processors_in_generate",
    "compose_a_chain",
    "processor_without_registry",
    "ngram_style",
    "ngram_sweep",
    "bytes_across_tokenizers",
]


def example(name: str) -> Any:
    """The example's module, imported from its file."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as the main script of a process has a name to pickle by
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", OURS)
def test_example_runs(name: str) -> None:
    """And returns something."""
    assert example(name).main(tiny_model(), tiny_tokenizer())


def test_no_example_is_forgotten() -> None:
    """A script in examples/ has a test: here, or one that names it."""
    named = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert [path.stem for path in FOLDER.glob("*.py") if path.stem not in named] == []
