"""Examples of Specs: the objects that they name come from ``example_resources``, whatever the text contains."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

import logitkit
from logitkit.errors import PluginError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry import Spec
from logitkit.registry.laws import check_processor, foreign_model, foreign_tokenizer, tiny_model
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.subjects import registry_of


class Same(LogitsProcessor):
    """Returns the scores unchanged; has a text parameter."""

    def __init__(self, *, text: str = "") -> None:
        self.text = text

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


class Asks(Same):
    """Requests from the binding the object that its text names."""

    @classmethod
    def bind(cls, binding: Any, *, text: str) -> Asks:
        made = cls(text=text)
        made.thing = binding.resource(text)
        return made

    thing: Any = None

    def __reduce__(self) -> Any:
        return Asks, ()


def made(model: Any, tokenizer: Any) -> str:
    """Return a resource of an unknown kind."""
    return f"made of {model.config.vocab_size}"


def broken(model: Any, tokenizer: Any) -> str:
    """Raise an error, as a faulty plugin does."""
    raise KeyError("gone")


def spec(name: str, example: str, target: str = "Same", **more: Any) -> Spec:
    """Return the Spec of a class of this file."""
    return Spec(name=name, summary="s", source="s", target=f"{__name__}:{target}", example=example, **more)


@pytest.mark.parametrize("text", ["other", "third", "model", "tokenizer"])
def test_text_that_looks_like_a_resource_is_text(text: str) -> None:
    """``same(text='other')`` keeps every law: no resource is passed that no parameter declares."""
    assert check_processor(spec("same", f"same(text='{text}')")).failures == []


def test_each_kind_of_resource() -> None:
    """Models are numbered in the order of declaration; a foreign model brings its tokenizer."""
    kinds = {"a": "model", "b": "model", "c": "foreign_model", "d": "byte_model"}
    ensemble, example = logitkit.describe("ensemble"), "ensemble(models=['a', 'b', 'c', 'd'])"
    many = dataclasses.replace(ensemble, example=example, example_resources=kinds)
    bound = example_of(many)
    assert bound.resources["a"] is tiny_model(1) and bound.resources["b"] is tiny_model(2)
    assert bound.resources["c"] is foreign_model() and bound.tokenizers == {"c": foreign_tokenizer()}
    assert isinstance(bound.resources["d"], ByteModel) and bound.model is tiny_model()
    table = example_of(logitkit.describe("ngram_style")).resources["style"]
    assert isinstance(table, NgramTable)
    assert isinstance(example_of(logitkit.describe("byte_ensemble")).model, ByteModel)


def test_a_plugin_makes_its_own_resource() -> None:
    """``module:function`` is called with the generating model and its tokenizer."""
    named = {"thing": f"{__name__}:made"}
    asks = spec("asks", "asks(text='thing')", "Asks", needs_files=("text",), example_resources=named)
    call = example_of(asks, registry_of(asks)).bind("a prompt")
    assert call.composite.parts[0][1].thing == "made of 272"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"example_resources": {"thing": f"{__name__}:broken"}}, "must be made by .*broken.* got KeyError: 'gone'"),
        ({"example_resources": {"thing": f"{__name__}:absent"}}, "must be made by .*absent.* got AttributeError"),
        ({"example_resources": {"other": "model"}}, "must be named by the example, got 'other'"),
    ],
)
def test_resources_that_cannot_be_made_are_refused(more: dict[str, Any], says: str) -> None:
    """The error names the plugin, the field and what to change."""
    asks = spec("asks", "asks(text='thing')", "Asks", needs_files=("text",), **more)
    with pytest.raises(PluginError, match=f"example_resources {says}"):
        example_of(asks, registry_of(asks))
