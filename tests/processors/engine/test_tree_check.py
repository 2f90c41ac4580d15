"""What a model does with a tree of paths, or with rows that are rewritten, is checked once, before anything reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from architectures import DECODERS, architecture

import logitkit
from fakes import SPECIALS, seeded
from foreign import foreign_model, foreign_tokenizer
from logitkit.errors import ModelError
from logitkit.processors.byte_level import ByteModel
from logitkit.processors.engine import KVTree, reading_check, tree_check
from logitkit.processors.engine.reading_check import ReadingAbilities
from logitkit.registry.laws import tiny_model, tiny_tokenizer

SIZES: dict[str, Any] = {"vocab_size": 272, "hidden_size": 32, **SPECIALS}
HEADS: dict[str, Any] = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8}
LOCAL: dict[str, Any] = {"attention_types": [[["global", "local"], 1]], "initializer_range": 0.3}
PATHS = "must give each path of a tree the logits of that path alone"
INEXACT = {
    "Rwkv": ({**SIZES, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 64}, PATHS),
    "Mpt": ({"vocab_size": 272, "d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3}, PATHS),
    "GPTNeo": ({**SIZES, **LOCAL, "num_layers": 2, "num_heads": 4, "window_size": 16}, PATHS),
    "Bloom": ({**SIZES, "n_layer": 2, "n_head": 4}, "must read tokens and continue from a cache"),
    "Mamba": ({**SIZES, "num_hidden_layers": 2, "state_size": 8}, "must be causal with attention in all layers"),
    "Jamba": (
        {**SIZES, **HEADS, **EXPERTS, "num_hidden_layers": 2, "mamba_dt_rank": 4},
        "must be causal with attention in all layers",
    ),
}


def model_of(name: str, **sizes: int) -> Any:
    """Return a random model of an architecture of transformers."""
    config = getattr(transformers, f"{name}Config")(**{**INEXACT[name][0], **sizes})
    return seeded(lambda: getattr(transformers, f"{name}ForCausalLM")(config), 0)


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "bloom"])
def test_attention_with_masks_and_positions_is_accepted(name: str) -> None:
    """Rotary and absolute positions, sliding windows and grouped heads read trees exactly; the tree counts no check."""
    tree = KVTree(architecture(name))
    assert tree.forwards == tree.tokens_fed == 0
    assert architecture(name) in tree_check._EXACT


@pytest.mark.parametrize("name", INEXACT)
def test_other_models_are_refused_before_they_read(name: str) -> None:
    """Recurrent states, biases by place and windows by place give other logits where paths fork."""
    model = model_of(name)
    with pytest.raises(ModelError, match=f"KVTree: .*{name}ForCausalLM|KVTree: .*{INEXACT[name][1]}") as raised:
        KVTree(model)
    assert INEXACT[name][1] in str(raised.value)
    with pytest.raises(ModelError, match=INEXACT[name][1]):
        ByteModel(model, tiny_tokenizer())


@pytest.mark.parametrize("name", ["Rwkv", "Mpt"])
def test_a_prompt_boundary_is_refused_at_bind(name: str) -> None:
    """byte_boundary reads forks inside the removed bytes; a prompt without removed bytes needs no tree."""
    model = model_of(name, vocab_size=foreign_model().config.vocab_size)
    with pytest.raises(ModelError, match=PATHS):
        logitkit.chain("byte_boundary()").bind(model, foreign_tokenizer(), "one th")
    assert not any(logitkit.chain("byte_boundary()").bind(model, foreign_tokenizer(), "one.").prompts.removed)


def test_a_model_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second tree of a model runs no forward; hooks of the model see no check."""
    model = copy.deepcopy(tiny_model())
    seen: list[Any] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    KVTree(model)
    monkeypatch.setattr(tree_check, "_paths", None)
    KVTree(model)
    assert not seen


@pytest.mark.parametrize("fault", ["chunks", "padding"])
def test_a_helper_that_reads_rewritten_rows_wrongly_is_refused_at_bind(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a model with another tokenizer names the helper and its class."""
    helper = copy.deepcopy(foreign_model())
    monkeypatch.setitem(reading_check._KNOWN, helper, ReadingAbilities(**{fault: False}))
    with pytest.raises(ModelError, match="far: a model with another tokenizer must read chunks and padded rows"):
        logitkit.chain("ensemble(models=['far'])").bind(
            tiny_model(), tiny_tokenizer(), "a prompt", far=helper, tokenizers={"far": foreign_tokenizer()}
        )


def test_a_window_that_a_model_applies_itself_is_kept_dense() -> None:
    """GPT-Neo counts cache slots in its window: rows of other tokens beyond it equal reading each row anew."""
    config = transformers.GPTNeoConfig(
        vocab_size=len(foreign_tokenizer()), hidden_size=32, num_layers=2, num_heads=4, window_size=8, **LOCAL
    )
    helper = seeded(lambda: transformers.GPTNeoForCausalLM(config), 0)
    call = logitkit.chain("ensemble(models=['far'], weights=[0.0, 1.0])").bind(
        tiny_model(),
        tiny_tokenizer(),
        ["the three", "then the other thing"],
        far=helper,
        tokenizers={"far": foreign_tokenizer()},
    )
    reader = call.composite.parts[0][1].helpers[0].read
    output = call.generate(max_new_tokens=24, do_sample=True, eos_token_id=None)
    rows = output[:, : call.prompts.width + 23]
    got = reader(rows)
    reader.release()
    torch.testing.assert_close(got, reader(rows), rtol=1e-4, atol=1e-4)
    index = [0, 1]
    tails = reader.retokenize(rows[:, call.prompts.width :].tolist())
    for row in index:
        with torch.no_grad():
            want = helper(torch.tensor([[*reader.own[row], *tails[row]]])).logits[0, -1]
        torch.testing.assert_close(got[row], want, rtol=1e-4, atol=1e-4)
