"""Forwards that hold the rows of second streams: every cache and loop of transformers, and no further compilation."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig, Gemma3ForCausalLM, Gemma3TextConfig, LogitsProcessorList, StoppingCriteriaList

from fakes import SPECIALS, WIDTH, absolute_model, seeded, sliding_model
from fusing import CODE, PROMPTS, bound, decode
from logitkit.inspection.streaming import Streamer
from logitkit.processors.engine.forward_plan import ForwardPlan
from logitkit.processors.engine.model_view import model_view
from logitkit.processors.transformers_api import cache_of
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def hybrid_model() -> Any:
    """Return a Gemma 3 with a layer that sees 8 tokens and a layer that sees all."""
    config = Gemma3TextConfig(
        vocab_size=WIDTH,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=256,
        initializer_range=0.3,
        **SPECIALS,
    )
    return seeded(lambda: Gemma3ForCausalLM(config), 0)


MODELS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model, "hybrid": hybrid_model}
LONG = "cfg(2.0, negative='a negative prompt that is longer than the prompts')"
OUTPUTS = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
LOOPS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "static": {"cache_implementation": "static"},
    "static sampling": {"cache_implementation": "static", "do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "static beams": {"num_beams": 2, "cache_implementation": "static"},
    "beam sampling": {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", MODELS)
def test_scores_and_tokens_equal_those_of_separate_forwards(kind: str, loop: str) -> None:
    """With padded prompts and a second prompt that is longer: equal tokens, logits to 1e-4, scores to 1e-4 of them."""
    chain = f"{LONG} | cfg(1.5, negative='x')"
    call = bound(chain, MODELS[kind](), PROMPTS[:2])
    fused = decode(call, "fused", **LOOPS[loop], **OUTPUTS)
    lazy = decode(bound(chain, MODELS[kind](), PROMPTS[:2]), "lazy", **LOOPS[loop], **OUTPUTS)
    assert call.trace.fusion.rows_per_row == 3 and set(call.trace.forwards.values()) == {0}
    assert torch.equal(fused.sequences, lazy.sequences)
    for name, relative in (("scores", 1e-4), ("logits", 0)):
        for mine, theirs in zip(fused[name], lazy[name], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=relative)


@pytest.mark.parametrize("sampling", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_drafts_copied_from_the_prompt(kind: str, sampling: bool) -> None:
    """A forward over several drafted tokens computes the stream after each of them; rejected tokens are forgotten."""
    text = ["one prompt r r r r one prompt r r"]
    mode = {"prompt_lookup_num_tokens": 3, "do_sample": sampling, "max_new_tokens": 16}
    call, lazy = bound(LONG, MODELS[kind](), text), bound(LONG, MODELS[kind](), text)
    assert torch.equal(decode(call, "fused", **mode), decode(lazy, "lazy", **mode))
    assert call.trace.forwards["negative prompt"] < lazy.trace.forwards["negative prompt"]


def compiled() -> dict[str, Any]:
    """Return settings of a static cache and a forward that is one graph, traced by dynamo."""
    settings: dict[str, Any] = {"backend": "eager", "fullgraph": True, "mode": None}
    config: Any = CompileConfig(**settings)
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


def test_a_compiled_forward_is_compiled_once() -> None:
    """Later calls compile nothing: other chains, prompts and settings; the first call makes as many graphs as plain."""
    torch._dynamo.reset()
    counters.clear()
    model = tiny_model(31)
    decode(bound("", model, [CODE] * 2), "auto", **compiled())
    plain = counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    counters.clear()
    graphs = []
    for chain, text, sampling in itertools.product(
        (LONG, "cfg(1.5)", "uscd(gate=0.5, lame='x') | temperature(0.8)"), (CODE, "one prompt"), (False, True)
    ):
        call, lazy = (bound(chain, tiny_model(31) if one else model, [text]) for one in range(2))
        fused = decode(call, "auto", **compiled(), do_sample=sampling)
        assert call.trace.fusion.state == "fused"
        assert torch.equal(fused, decode(lazy, "lazy", do_sample=sampling))
        graphs.append(counters["stats"]["unique_graphs"])
    assert set(graphs) == {plain}


def test_a_static_cache_has_twice_the_numbers_of_a_plain_one() -> None:
    """The second prompt is no longer than the first one; a longer one makes the cache longer by the difference."""
    held: list[int] = []
    model = seeded(lambda: type(tiny_model())(tiny_model().config), 32)
    hook = model.register_forward_hook(
        lambda _, __, kwargs, ___: held.append(cache_of(kwargs).layers[0].keys.numel()), with_kwargs=True
    )
    for chain in ("", "cfg(2.0)"):
        decode(bound(chain, model, [CODE]), "auto", cache_implementation="static")
    hook.remove()
    assert held[-1] == 2 * held[0]


def test_streaming_and_stopping_with_a_static_cache() -> None:
    """The streamer and the stopping criteria of the caller see the rows of `generate` alone."""
    seen: list[tuple[int, ...]] = []
    pieces: list[str] = []

    def stop(rows: torch.Tensor, _: Any) -> torch.Tensor:
        seen.append(tuple(rows.shape))
        return torch.full((len(rows),), rows.shape[1] >= 14)

    call = bound("cfg(2.0)", prompts=["one prompt"])
    streamer = Streamer(tiny_tokenizer(), advance=lambda: None, write=pieces.append)
    output = decode(
        call,
        "fused",
        cache_implementation="static",
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList([stop]),  # type: ignore[list-item]
    )
    assert seen == [(1, 11), (1, 12), (1, 13), (1, 14)] and output.shape == (1, 14)
    assert "".join(pieces) == call.texts(output)[0]


def test_the_view_shares_what_generate_stores_on_the_model() -> None:
    """After a call, only the compiled forward and the length of the longest static cache are new on the model."""
    model = tiny_model(33)
    before = dict(vars(model))
    decode(bound("cfg(2.0)", model, ["one prompt"]), "fused", cache_implementation="static")
    assert {*vars(model)} - {*before} == {"_previous_max_cache_length"}
    assert all(value is before[name] for name, value in vars(model).items() if name in before)
    view = model_view(ForwardPlan(model, bound("", model).prompts, []))
    assert isinstance(view, type(model)) and type(view).__name__ == type(model).__name__


def test_generate_on_the_view_without_streams_is_that_of_the_model() -> None:
    """An empty plan changes nothing: processors see the same rows, and the scores are equal bit for bit."""
    call = bound("", tiny_model())
    settings = {"max_new_tokens": 5, "do_sample": True, "logits_processor": LogitsProcessorList(), **OUTPUTS}
    outputs = []
    for model in (call.model, model_view(ForwardPlan(call.model, call.prompts, []))):
        torch.manual_seed(0)
        outputs.append(model.generate(**call.inputs, **settings))
    mine, theirs = outputs
    assert torch.equal(mine.sequences, theirs.sequences)
    assert all(torch.equal(*pair) for pair in zip(mine.scores, theirs.scores, strict=True))
