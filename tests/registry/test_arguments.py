"""Arguments of generate, score, attach and bind: by position, by name, or refused with a way out."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import LogitkitError, ModelError, ParameterError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
ANY_NAME = [
    "self",
    "chain",
    "model",
    "tokenizer",
    "prompts",
    "trace",
    "tokenizers",
    "resources",
    "kept",
    "load",
    "warn",
]


def test_the_chain_by_position() -> None:
    """generate, score and attach take it behind what it is bound to, as text, data or Chain."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for chain in ("cfg(2.0)", logitkit.chain("cfg(2.0)"), [{"name": "cfg", "params": {"scale": 2.0}}]):
        named = logitkit.generate(model, tokenizer, "ab", chain=chain, **GREEDY)
        assert torch.equal(logitkit.generate(model, tokenizer, "ab", chain, **GREEDY).ids, named.ids)
        (scored,) = logitkit.score(model, tokenizer, "ab", "cd", chain)
        assert scored.logp == logitkit.score(model, tokenizer, "ab", "cd", chain=chain)[0].logp
        with logitkit.attach(model, tokenizer, chain):
            attached = model.generate(**tokenizer("ab", return_tensors="pt"), **GREEDY)
        assert torch.equal(attached, named.ids)


@pytest.mark.parametrize("name", ANY_NAME)
def test_an_object_under_any_name(name: str) -> None:
    """A chain may name an object as an argument is named; the answer is that of another name."""
    model, tokenizer, other = tiny_model(), tiny_tokenizer(), tiny_model(1)
    chain, named = f"contrastive(amateur={name!r})", {name: other}
    want = logitkit.generate(
        model, tokenizer, "ab", "contrastive(amateur='small')", resources={"small": other}, **GREEDY
    ).ids
    got = logitkit.generate(model, tokenizer, "ab", chain, resources=named, **GREEDY).ids
    assert torch.equal(got, want)
    assert torch.equal(logitkit.chain(chain).bind(model, tokenizer, "ab", resources=named).generate(**GREEDY), want)
    if name not in ("trace", "tokenizers", "resources"):
        bound = logitkit.chain(chain).bind(model, tokenizer, "ab", **named)  # type: ignore[arg-type]
        assert torch.equal(bound.generate(**GREEDY), want)
    assert len(logitkit.score(model, tokenizer, "ab", "c", chain, resources=named)) == 1
    with logitkit.attach(model, tokenizer, chain, resources=named):
        assert torch.equal(model.generate(**tokenizer("ab", return_tensors="pt"), **GREEDY), want)


def test_arguments_of_bind_by_name() -> None:
    """The signature is the one that users read, and names work for all of it."""
    assert list(inspect.signature(logitkit.Chain.bind).parameters)[:4] == ["self", "model", "tokenizer", "prompts"]
    call = logitkit.chain("cfg(2.0)").bind(model=tiny_model(), tokenizer=tiny_tokenizer(), prompts="ab", trace=True)
    assert call.inputs["input_ids"].shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("small", tiny_tokenizer(), "ab"), r"model must be .*, got 'small'; load it: model, tokenizer = logitkit.mod"),
        ((tiny_tokenizer(), tiny_model(), "ab"), r"model must be a transformers model with generate, got Tok"),
        ((tiny_model(), "cfg(1.5)", "ab"), r"tokenizer must be a tokenizer of transformers, got 'cfg\(1.5\)'; write "),
        ((tiny_model(), None, "ab"), r"tokenizer must be a tokenizer of transformers, got NoneType; write "),
        ((tiny_model(), tiny_model(), "ab"), r"tokenizer must be a tokenizer of transformers, got LlamaFor"),
    ],
)
def test_arguments_in_the_wrong_place(arguments: tuple[Any, ...], says: str) -> None:
    """Each entry names itself, the argument, and the way out."""
    for owner, enter in (
        ("bind", logitkit.generate),
        ("bind", logitkit.chain("").bind),
        ("score", lambda *given: logitkit.score(*given, "c")),
        ("attach", lambda *given: logitkit.attach(*given[:2], "cfg(1.5)")),
        ("attach", lambda *given: logitkit.attach(*given[:2])),
    ):
        with pytest.raises(ModelError, match=f"^{owner}: {says}"):
            enter(*arguments)


@pytest.mark.parametrize("parameter", ["resources", "tokenizers"])
def test_objects_that_are_no_mapping(parameter: str) -> None:
    """A model in the place of a mapping is told as such."""
    given: dict[str, Any] = {parameter: tiny_model(1)}
    says = rf"{parameter} must be a mapping of names to objects, got 'LlamaForCausalLM'; write {parameter}=\{{'name'"
    pair = tiny_model(), tiny_tokenizer()
    with pytest.raises(ParameterError, match=says):
        logitkit.generate(*pair, "ab", **given)
    with pytest.raises(ParameterError, match=says):
        logitkit.score(*pair, "ab", "c", **given)
    with pytest.raises(ParameterError, match=f"^attach: {says}"):
        logitkit.attach(*pair, "", **given)
    with pytest.raises(LogitkitError, match="trace must be True or False, got 'LlamaForCausalLM'; pass an object"):
        logitkit.chain("contrastive(amateur='trace')").bind(*pair, "ab", trace=tiny_model(1))  # type: ignore[arg-type]
