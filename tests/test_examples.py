"""Every script in examples/ runs on a tiny model."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer
from media_models import ENCODINGS

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = [
    "processors_in_generate",
    "compose_a_chain",
    "processor_without_registry",
    "ngram_style",
    "ngram_sweep",
    "bytes_across_tokenizers",
    "ensemble_with_drafts",
    "constrained_beams",
]


def example(name: str) -> Any:
    """Return the module of an example, imported from its file."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # objects of the module are pickled by this name
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    """The example returns a result."""
    another: tuple[Any, ...] = ()
    if name in ("bytes_across_tokenizers", "ensemble_with_drafts"):
        another = (tiny_model(1), foreign_tokenizer())
    assert example(name).main(tiny_model(), tiny_tokenizer(), *another)


def test_visual_contrast_runs() -> None:
    """Visual contrastive decoding answers two prompts with images; without strength the answers are the model's own."""
    make, encoding = ENCODINGS["llava"]
    run = example("visual_contrast").main
    assert len(run(make(), tiny_tokenizer(), encoding())) == 2
    plain = make().generate(**encoding(), max_new_tokens=24, do_sample=False)
    want = tiny_tokenizer().batch_decode(plain[:, encoding()["input_ids"].shape[1] :], skip_special_tokens=True)
    assert run(make(), tiny_tokenizer(), encoding(), strength=0.0) == want


def test_members_of_a_book_are_found() -> None:
    """A tiny model that was trained on half of the passages of random words tells them from the others."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "away", "home"]
    text = " ".join(random.Random(1).choices(words, k=400))
    found = example("membership_of_a_book").main(
        tiny_model(), tiny_tokenizer(), text, count=16, words=8, epochs=8, rate=1e-2
    )
    assert set(found) == {"log_likelihood", "min_k", "min_k_plus_plus", "dc_pdd"}
    before, after = found["log_likelihood"]
    assert after.value > before.value and after.value > 0.7


def test_every_example_has_a_test() -> None:
    """Each script in examples/ is named in a test."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert [path.stem for path in FOLDER.glob("*.py") if path.stem not in tests] == []
