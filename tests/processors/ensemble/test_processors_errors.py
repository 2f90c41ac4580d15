"""Ensembles: each invalid input has one named error, before any model runs."""

from __future__ import annotations

import pytest

import logitkit
from ensembles import PROMPTS, bound, decode
from foreign import foreign_model
from logitkit.errors import FileFormatError, ModelError, ParameterError, PromptError, UnknownNameError
from logitkit.registry.laws import tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("chain", "error", "says"),
    [
        ("ensemble(models=['far'], weights=[1.0])", ParameterError, "weights must be 2 finite numbers >= 0"),
        ("ensemble(models=['far'], weights=[0.0, 0.0])", ParameterError, "not all 0"),
        ("ensemble(models=['far'], weights=[1.0, -1.0])", ParameterError, "finite numbers >= 0"),
        ("core(models=['far'], kernel='gaussian')", ParameterError, "kernel must be one of 'linear', 'rbf'"),
        ("core(models=['far'], main_floor=1.5)", ParameterError, "main_floor must be"),
        ("core(models=['far'], align='minned')", UnknownNameError, "did you mean 'mined'"),
        ("core(models=['far'], align=['gac', 'gac'])", ParameterError, r"one alignment, or 1"),
        ("core(models=['far', 'piece'], align=['unite', 'gac'])", ParameterError, "'unite' for all models or for none"),
        ("core(models=['far'], align='nowhere.safetensors')", FileFormatError, "must be an alignment file"),
        ("core(models=['nobody'])", UnknownNameError, "no model named 'nobody'"),
        ("core(models='far')", ParameterError, "models must be a list"),
        ("ensemble(models=['far'], prompts={'fur': 'x'})", ParameterError, "given for models of the ensemble"),
        ("ensemble(models=['far'], prompts={'far': ['x']})", ParameterError, "one text, or 3"),
        ("ensemble(models=['far'], topk=-1)", ParameterError, "topk must be a whole number >= 0"),
    ],
)
def test_each_invalid_parameter_is_a_named_error(chain: str, error: type[Exception], says: str) -> None:
    """The error is raised while the chain is bound."""
    with pytest.raises(error, match=says):
        bound(chain)


def test_a_helper_without_tokenizer_is_refused() -> None:
    """A helper whose tokenizer is neither passed nor known from its origin is refused."""
    with pytest.raises(ModelError, match="must come with its tokenizer"):
        logitkit.chain("ensemble(models=['far'])").bind(tiny_model(), tiny_tokenizer(), PROMPTS, far=foreign_model())


def test_a_helper_that_runs_out_of_context_is_a_named_error() -> None:
    """The error comes at the step that exceeds the context, or at once for a prompt that does."""
    call = bound("ensemble(models=['far'], prompts={'far': '" + "x" * 252 + "'})", ["one"])
    with pytest.raises(ModelError, match="far: a row must be at most 256 tokens of this model"):
        decode(call)
    with pytest.raises(ModelError, match="its context, got 300"):
        bound("ensemble(models=['far'], prompts={'far': '" + "x" * 300 + "'})", ["one"])
    same = bound("ensemble(models=['other'], prompts={'other': '" + "x" * 508 + "'})", ["one"], other=tiny_model(1))
    with pytest.raises(ModelError, match="model 'other': a row must be at most 512 tokens"):
        decode(same)


def test_an_empty_prompt_of_a_helper_is_refused() -> None:
    """A helper's own prompt must not be empty."""
    with pytest.raises((PromptError, ParameterError), match="far"):
        bound("ensemble(models=['far'], prompts={'far': ''})")
