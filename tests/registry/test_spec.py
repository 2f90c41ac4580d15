"""Programs act on the typed facts of a Spec and never on its prose."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

import logitkit
from logitkit.errors import ParameterError, PluginError
from logitkit.registry import Chain, Plugin, Registry, Spec
from logitkit.registry.parameter_texts import names_in
from logitkit.registry.spec import COSTS


class Plain(LogitsProcessor):
    """Returns the scores unchanged; has three text parameters."""

    def __init__(self, *, large: str = "", text: str = "", table: str = "") -> None:
        self.large, self.text, self.table = large, text, table

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


class Rewrites(Plain):
    """Has a ``prepare``."""

    @classmethod
    def prepare(cls, binding: Any, **parameters: Any) -> None:
        """Change nothing."""


def spec(**changed: Any) -> Spec:
    """Return a valid Spec of `Plain` with some fields changed."""
    fields = {"name": "plain", "summary": "s", "source": "here", "target": f"{__name__}:Plain"}
    return Spec(**fields | changed)


def chain(text: str, **changed: Any) -> Chain:
    """Return a chain of this Spec alone."""
    return Chain(text, registry=Registry([Plugin(name="p", origin="here", specs=(spec(**changed),))]))


def test_prose_names_no_model() -> None:
    """A sentence about a parameter in ``needs`` does not make its value a model; ``needs_models`` does."""
    prose = ("large: a larger model",)
    assert chain("plain(large='gpt')", needs=prose).model_names == []
    assert chain("plain(large='gpt')", needs=prose).resource_names == []
    assert chain("plain(large='gpt')", needs_models=("large",)).model_names == ["gpt"]


def test_each_kind_of_name_has_its_field() -> None:
    """Models, tables and files are listed by kind, and all of them as resources; other texts are not."""
    facts = {"needs_models": ("large",), "needs_tables": ("table",)}
    read = chain("plain(large='gpt', table='book', text='gpt-2')", **facts)
    assert (read.model_names, read.table_names, read.resource_names) == (["gpt"], ["book"], ["gpt", "book"])
    assert chain("plain(table='head.json')", needs_files=("table",)).resource_names == ["head.json"]
    assert logitkit.chain("ensemble(models=['a', 'b'], align='gac') | top_k(3)").model_names == ["a", "b"]


def test_names_are_found_inside_lists_and_mappings() -> None:
    """The texts of a list or mapping count, in order and once; numbers and None do not."""
    assert names_in({"m": ["a", {"k": "b", "n": 3}, "a"], "x": None}, ("m", "x")) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"needs_models": "large"}, "needs_models must be a tuple of texts, got 'large'"),
        ({"extra_forwards": "no extra forward"}, "extra_forwards must be one of 'none', 'prompt', 'gated'"),
        ({"revision": 0}, "revision must be a whole number >= 1, got 0"),
        ({"revision": True}, "revision must be a whole number >= 1, got True"),
        ({"example_resources": {"a": "a model"}}, "example_resources must be one of 'model', .* got 'a model'"),
    ],
)
def test_facts_outside_their_vocabulary_are_refused(change: dict[str, Any], says: str) -> None:
    """An author learns at once which values a typed field allows."""
    with pytest.raises(ParameterError, match=f"Spec plain: {says}"):
        spec(**change)


def test_a_fact_about_an_absent_parameter_is_refused() -> None:
    """``needs_models`` must name parameters of the target; the error lists them."""
    with pytest.raises(PluginError, match=r"needs_models must name parameters \(large, text, table\), got 'larg'"):
        _ = spec(needs_models=("larg",)).model


@pytest.mark.parametrize(("target", "declared"), [("Plain", True), ("Rewrites", False)])
def test_rewrites_prompt_must_agree_with_the_class(target: str, declared: bool) -> None:
    """A class with a ``prepare`` declares that it rewrites prompts, and no other class does."""
    with pytest.raises(PluginError, match="rewrites_prompt must state whether"):
        _ = spec(target=f"{__name__}:{target}", rewrites_prompt=declared).factory
    assert spec(target=f"{__name__}:{target}", rewrites_prompt=not declared).factory.__name__ == target


@pytest.mark.parametrize("extra_forwards", COSTS)
def test_the_cost_in_words_may_be_left_out(extra_forwards: Any) -> None:
    """Without ``cost``, the words of the typed fact are used; a given ``cost`` is kept."""
    assert spec(extra_forwards=extra_forwards).cost == COSTS[extra_forwards]
    assert spec(extra_forwards=extra_forwards, cost="much").cost == "much"


def test_the_revision_is_part_of_the_hash() -> None:
    """Results of two revisions have different keys; chains without the processor keep theirs."""
    first, second = (chain("plain()", revision=revision) for revision in (1, 2))
    assert first.hash == chain("plain()").hash != second.hash
    assert first == second  # the same steps, which say nothing of revisions


def test_built_in_specs_use_the_typed_facts() -> None:
    """A processor that names models reads them, so it declares extra forwards; every fact survives as plain data."""
    for name in logitkit.names():
        built_in = logitkit.describe(name)
        assert built_in.extra_forwards != "none" or not built_in.needs_models, name
        data = built_in.as_data(schema=False)
        assert data["revision"] == built_in.revision and data["needs_models"] == list(built_in.needs_models)
        assert dataclasses.replace(built_in, plugin="p").as_data()["plugin"] == "p"
