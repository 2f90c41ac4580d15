"""What a model's cache can do is checked once, and readers act on it."""

from __future__ import annotations

import copy
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import logitkit
from fakes import SPECIALS, absolute_model, encoder_decoder_model, seeded, sliding_model
from logitkit.errors import ModelError
from logitkit.processors.engine import Binding, EncoderDecoderReader, Reader, read_prompts, reading_check
from logitkit.processors.engine.reading_check import ReadingAbilities, reading_abilities
from logitkit.processors.transformers_api import CACHE
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH

SIZES: dict[str, Any] = {"vocab_size": WIDTH, "hidden_size": 32, "num_hidden_layers": 2, **SPECIALS}
HEADS: dict[str, Any] = {
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
WITHOUT_CACHE: dict[str, dict[str, Any]] = {
    "Rwkv": {**SIZES, "attention_hidden_size": 32, "context_length": 64},
    "Mamba": {**SIZES, "state_size": 8},
    "MiniMax": {**SIZES, **HEADS, "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},
}
MAMBA2: dict[str, Any] = {**SIZES, "state_size": 8, "head_dim": 16, "num_heads": 4, "expand": 2, "n_groups": 2}
REFUSED = "Reader: the forward of {}ForCausalLM must "


def model_of(name: str, settings: dict[str, Any]) -> Any:
    """Return a random model of an architecture of transformers."""
    config = getattr(transformers, f"{name}Config")(**settings)
    return seeded(lambda: getattr(transformers, f"{name}ForCausalLM")(config), 0)


def jamba() -> Any:
    """Return a Jamba, whose recurrent layers ignore their state when a chunk has several tokens."""
    experts = {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8}
    return model_of("Jamba", {**SIZES, **HEADS, **experts, "mamba_dt_rank": 4})


class BlindToPadding(torch.nn.Module):
    """A Llama that reads padding as text."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_model()
        self.config, self.device, self.dtype = self.inner.config, self.inner.device, self.inner.dtype
        self.eval()

    def forward(self, attention_mask: Any = None, position_ids: Any = None, **inputs: Any) -> Any:
        """Run the model without mask and positions."""
        return self.inner(**inputs)


@pytest.mark.parametrize("make", [tiny_model, absolute_model, sliding_model])
def test_attention_models_read_chunks_and_padding(make: Any) -> None:
    """Rotary positions, absolute positions and sliding windows pass both checks."""
    assert reading_abilities(make(), Reader) == ReadingAbilities(chunks=True, padding=True)


def test_an_encoder_decoder_reads_chunks_and_padding() -> None:
    """The encoder masks padding, and the decoder reads chunks."""
    assert reading_abilities(encoder_decoder_model(), EncoderDecoderReader) == ReadingAbilities()


def test_a_model_that_ignores_its_state_is_read_token_by_token() -> None:
    """Jamba: several positions of continuing rows equal a forward over the whole text."""
    model, tokenizer = jamba(), tiny_tokenizer()
    prompts = read_prompts(tokenizer, model, "a prompt")
    own = tokenizer("another one")["input_ids"]
    reader = Binding(model, tokenizer, prompts).reader([own])
    assert not reader.abilities.chunks
    rows = torch.cat([prompts.ids, torch.tensor([[65, 66, 67, 68]])], dim=1)
    reader(rows[:, :-3])
    got = reader.positions(rows, 3)
    with torch.no_grad():
        want = model(torch.tensor([[*own, 65, 66, 67, 68]])).logits[:, -3:]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WITHOUT_CACHE)
def test_a_model_without_a_cache_of_keys_and_values_is_refused_at_bind(name: str) -> None:
    """The error names the model, and says nothing of the plugin."""
    model = model_of(name, WITHOUT_CACHE[name])
    with pytest.raises(ModelError, match=REFUSED.format(name)):
        logitkit.chain("cfg(2.0, negative='a fish')").bind(model, tiny_tokenizer(), "a prompt")
    logitkit.chain("top_p(0.9)").bind(model, tiny_tokenizer(), "a prompt")  # needs no stream


def test_mamba2_is_refused_or_equals_plain_forwards_where_it_takes_a_cache() -> None:
    """Mamba2 takes the cache of a reader from transformers 5.24 on, and continues from it exactly."""
    model, tokenizer = model_of("Mamba2", MAMBA2), tiny_tokenizer()
    chain = logitkit.chain("cfg(2.0, negative='a fish')")
    if CACHE not in signature(model.forward).parameters:
        with pytest.raises(ModelError, match=REFUSED.format("Mamba2")):
            chain.bind(model, tokenizer, "a prompt")
        return
    call = chain.bind(model, tokenizer, "a prompt")
    ids = model.generate(**call.inputs, logits_processor=call.processors, max_new_tokens=8, do_sample=False)
    start, own = call.inputs["input_ids"].shape[1], torch.tensor([tokenizer("a fish")["input_ids"]])
    with torch.no_grad():
        for place in range(start, ids.shape[1]):
            plain = model(ids[:, :place], use_cache=False).logits[:, -1].log_softmax(-1)
            other = torch.cat([own, ids[:, start:place]], dim=1)
            negative = model(other, use_cache=False).logits[:, -1].log_softmax(-1)
            assert ids[0, place] == (negative + 2 * (plain - negative)).argmax()


def test_a_model_that_reads_padding_as_text_takes_prompts_of_one_length() -> None:
    """Own prompts of several lengths are refused by the name of the model; equal lengths are read."""
    model: Any = BlindToPadding()
    assert reading_abilities(model, Reader) == ReadingAbilities(chunks=True, padding=False)
    prompts = read_prompts(tiny_tokenizer(), tiny_model(), ["one", "two"])
    Reader(model, [[1, 2], [3, 4]], prompts)
    with pytest.raises(ModelError, match="one length for BlindToPadding"):
        Reader(model, [[1, 2], [3]], prompts)


def test_a_model_is_checked_once_and_hooks_see_no_check() -> None:
    """The second reader runs no forward, and a check counts in no reader."""
    model = copy.deepcopy(tiny_model())
    seen: list[Any] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    inner: list[Any] = []
    model.model.register_forward_hook(lambda *_: inner.append(1))
    prompts = read_prompts(tiny_tokenizer(), model, "one")
    assert Reader(model, [[1, 2]], prompts).forwards == 0
    assert (len(seen), len(inner)) == (0, 3)
    Reader(model, [[1, 2, 3]], prompts)
    assert len(inner) == 3
    assert model in reading_check._KNOWN


def test_a_model_in_training_mode_is_not_checked() -> None:
    """Dropout makes every forward different; the check comes at the first use in evaluation mode."""
    model = copy.deepcopy(tiny_model()).train()
    assert reading_abilities(model, Reader) == ReadingAbilities()
    assert model not in reading_check._KNOWN


def test_16_bit_rounding_passes() -> None:
    """A model in bfloat16 passes both checks."""
    model = copy.deepcopy(tiny_model()).to(torch.bfloat16)
    assert reading_abilities(model, Reader) == ReadingAbilities()


def test_prompt_learning_is_refused_by_name() -> None:
    """A PEFT model with virtual tokens is refused with the name of its method."""

    class PeftModel(BlindToPadding):
        active_peft_config = SimpleNamespace(is_prompt_learning=True, peft_type="PROMPT_TUNING")

    prompts = read_prompts(tiny_tokenizer(), tiny_model(), "one")
    with pytest.raises(ModelError, match="PeftModel with PROMPT_TUNING, which adds virtual tokens"):
        Reader(PeftModel(), [[1, 2]], prompts)


def test_an_error_in_the_forward_names_the_model() -> None:
    """A forward that needs other inputs than tokens is refused as the model's own error."""

    class NeedsImages(BlindToPadding):
        def forward(self, *, pixels: Tensor, **inputs: Any) -> Any:
            return pixels

    prompts = read_prompts(tiny_tokenizer(), tiny_model(), "one")
    with pytest.raises(ModelError, match=r"the forward of NeedsImages must read tokens .*missing 1 required"):
        Reader(NeedsImages(), [[1, 2]], prompts)


def test_a_model_without_a_standard_place_of_embeddings_is_checked() -> None:
    """``get_input_embeddings`` may raise NotImplementedError; the model is then checked like any other."""
    model = copy.deepcopy(tiny_model())

    def missing() -> None:
        raise NotImplementedError

    model.get_input_embeddings = missing
    assert reading_abilities(model, Reader) == ReadingAbilities()
