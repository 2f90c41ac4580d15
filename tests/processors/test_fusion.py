"""Second streams in the generating model's own forward: the same logits and tokens, one forward a step."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, MaxLengthCriteria, StoppingCriteriaList

import logitkit
from fakes import absolute_model, encoder_decoder_model, sliding_model
from logitkit.errors import ModeError, ParameterError
from logitkit.processors import fusion
from logitkit.registry.subjects import tiny_model, tiny_tokenizer
from reference.recompute import Recompute

CAUSAL = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
CODE = 'def f(x):\n    """Add one.\n\n    >>> f(1)\n    2\n    """\n'
PROMPTS = ["one prompt", "a second, longer prompt", CODE]
CHAINS = [
    "cfg(2.0)",
    "cfg(2.0, negative='a negative prompt that is longer than the prompts')",
    "cad(0.5, context='r')",
    "uscd(gate=1.0, lame='lame')",
    "uscd(gate=0.5)",
    "cfg(1.5) | uscd(gate=1.0, lame='lame') | temperature(0.7) | top_p(0.9)",
]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "several": {"do_sample": True, "num_return_sequences": 3},
    "penalty": {"repetition_penalty": 1.3},
}


class Watch(LogitsProcessor):
    """Compares what a stream answers with the slow reference, at every step."""

    def __init__(self, stream: Any, slow: Any) -> None:
        self.stream, self.slow, self.worst = stream, slow, 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.worst = max(self.worst, float((self.stream(input_ids) - self.slow(input_ids)).abs().max()))
        return scores


def bound(chain: str, model: Any = None, prompts: Any = PROMPTS) -> Any:
    """A chain bound to a tiny model."""
    prompts = [text for text in prompts if "r" in text] if "cad" in chain else prompts
    return logitkit.chain(chain).bind(model or tiny_model(), tiny_tokenizer(), prompts)


def decode(call: Any, streams: str, **mode: Any) -> torch.Tensor:
    """Ids of 12 new tokens."""
    torch.manual_seed(0)
    return call.generate(streams=streams, **{"max_new_tokens": 12, "do_sample": False, **mode})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", CAUSAL)
def test_same_tokens_as_reading_along_alone(kind: str, chain: str, mode: str) -> None:
    """Unequal prompts, padded; sampling draws from the same seed the same tokens."""
    call = bound(chain, CAUSAL[kind]())
    fused = decode(call, "fused", **MODES[mode])
    assert call.trace.fusion.startswith("fused") and set(call.trace.forwards.values()) == {0}
    assert torch.equal(fused, decode(bound(chain, CAUSAL[kind]()), "lazy", **MODES[mode]))


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("chain", ["cfg(2.0, negative='no')", "uscd(gate=1.0)"])
def test_logits_equal_recomputation(kind: str, chain: str) -> None:
    """Within 1e-4 at every step."""
    call = bound(chain, CAUSAL[kind]())
    (stream,) = call.composite.parts[0][1].streams
    watch = Watch(stream, Recompute(call.model, [list(ids) for ids in stream.own], call.prompts.ids))
    decode(call, "fused", logits_processor=[watch])
    assert watch.worst < 1e-4 and stream.forwards == 0


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=4),
    negative=st.text("xyz", min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_any_prompts(texts: list[str], negative: str, seed: int) -> None:
    """Shorter, longer and equal second prompts."""
    torch.manual_seed(seed)
    chain = f"cfg(1.7, negative={negative!r})"
    got = bound(chain, prompts=texts).generate(streams="fused", max_new_tokens=5, do_sample=True)
    torch.manual_seed(seed)
    want = bound(chain, prompts=texts).generate(streams="lazy", max_new_tokens=5, do_sample=True)
    assert torch.equal(got, want)


def test_one_forward_a_step() -> None:
    """And twice the rows in it."""
    call, shapes = bound("cfg(2.0)"), []
    hook = call.model.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.logits.shape[:2])))
    with_hook = decode(call, "fused")
    hook.remove()
    assert len(shapes) == with_hook.shape[1] - call.prompts.width
    assert call.trace.calls == len(shapes)


def test_scores_and_logits_are_the_rows_own() -> None:
    """output_scores and output_logits; the returned output holds no cache."""
    call = bound("cfg(2.0)")
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    fused, lazy = (decode(call, streams, **asked) for streams in ("fused", "lazy"))
    assert fused.past_key_values is None
    for name in ("scores", "logits"):
        for mine, theirs in zip(fused[name], lazy[name], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_streaming() -> None:
    """The streamer sees one row a prompt, as always."""
    from logitkit.streaming import Streamer

    pieces: list[str] = []
    call = bound("cfg(2.0)", prompts=["one prompt"])
    out = decode(call, "fused", streamer=Streamer(tiny_tokenizer(), write=pieces.append))
    assert "".join(pieces) == call.texts(out)[0]


def test_stopping_criteria_see_the_rows_only() -> None:
    """A criterion of the caller's own."""
    call = bound("cfg(2.0)")
    stop = StoppingCriteriaList([MaxLengthCriteria(call.prompts.width + 3)])
    assert decode(call, "fused", stopping_criteria=stop).shape == (3, call.prompts.width + 3)


def test_chosen_by_itself() -> None:
    """`auto` fuses where it can; the chain need not be told."""
    got = logitkit.generate(tiny_model(), tiny_tokenizer(), PROMPTS, chain="cfg(2.0)", max_new_tokens=4)
    assert got.trace.fusion == "fused: one forward carries 2 rows for each one"
    assert got.trace.summary()["fusion"] == got.trace.fusion


LAZY = {
    "beams": ("cfg(2.0)", {"num_beams": 2}, "num_beams=2"),
    "prompt lookup": ("cfg(2.0)", {"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens=2"),
    "static cache": ("cfg(2.0)", {"cache_implementation": "static"}, "cache_implementation=static"),
    "no cache": ("cfg(2.0)", {"use_cache": False}, "use_cache=False"),
    "attentions": ("cfg(2.0)", {"output_hidden_states": True}, "output_hidden_states=True"),
    "neutral": ("cfg(1.0)", {}, "no stream reads along"),
    "no lame prompt": ("uscd()", {}, "no stream reads along"),
    "much longer": (f"cfg(2.0, negative='{'n' * 300}')", {}, "a second prompt of 300 tokens beside 10"),
}


@pytest.mark.parametrize("case", LAZY)
def test_lazy_with_its_reason(case: str) -> None:
    """What a doubled batch cannot do, or would do for nothing."""
    chain, mode, why = LAZY[case]
    call = bound(chain, prompts=["one prompt"])
    decode(call, "auto", **mode)
    assert call.trace.fusion.startswith(f"lazy: {why}")


def test_streams_of_other_models_stay_alone() -> None:
    """Nor is an encoder doubled."""
    call = logitkit.chain("contrastive('weak')").bind(tiny_model(), tiny_tokenizer(), PROMPTS, weak=tiny_model(1))
    decode(call, "auto")
    assert call.trace.fusion == "lazy: a stream is another model's" and call.trace.forwards["weak"] == 12
    call = logitkit.chain("cfg(2.0)").bind(encoder_decoder_model(), tiny_tokenizer(), PROMPTS)
    decode(call, "auto")
    assert call.trace.fusion == "lazy: the prompt is read in an encoder"


def test_asked_for_and_impossible() -> None:
    """A named error with the reason; a misspelled choice too."""
    with pytest.raises(ModeError, match="streams cannot be 'fused', num_beams=2; leave streams out"):
        decode(bound("cfg(2.0)"), "fused", num_beams=2)
    with pytest.raises(ParameterError, match="streams must be 'auto', 'fused' or 'lazy', got 'both'"):
        decode(bound("cfg(2.0)"), "both")


def test_other_forwards_of_the_model_are_left_alone() -> None:
    """A processor that asks the same model on its own gets its own answer; afterwards no hook is left."""
    model, answers = tiny_model(), []

    class Asks(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            answers.append(model(input_ids=input_ids).logits.shape)
            return scores

    call = bound("cfg(2.0)", model)
    decode(call, "fused", logits_processor=[Asks()])
    assert answers[0][0] == len(PROMPTS)
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_an_error_leaves_no_hook() -> None:
    """And the next call works."""
    model = tiny_model()

    class Fails(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("stop")

    call = bound("cfg(2.0)", model)
    with pytest.raises(RuntimeError, match="stop"):
        decode(call, "fused", logits_processor=[Fails()])
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert torch.equal(decode(call, "fused"), decode(bound("cfg(2.0)"), "lazy"))


def test_rows_that_the_forward_did_not_carry_are_read_alone() -> None:
    """The answer is that of the prefix asked for, not of the last forward."""
    call = bound("cfg(2.0)")
    (stream,) = call.composite.parts[0][1].streams
    slow = Recompute(call.model, [list(ids) for ids in stream.own], call.prompts.ids)

    class Elsewhere(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            other = torch.cat([input_ids, torch.full_like(input_ids[:, :1], 65)], dim=1).flip(0)
            torch.testing.assert_close(stream(other), slow(other), atol=1e-4, rtol=0)
            return scores

    decode(call, "fused", logits_processor=[Elsewhere()])
    assert stream.forwards > 0


@pytest.mark.parametrize(("cost", "parts"), [(3.0, True), (1.05, False)])
def test_a_gate_that_hardly_opens(monkeypatch: pytest.MonkeyPatch, cost: float, parts: bool) -> None:
    """After the trial the streams part where a fused step costs more than asking alone; tokens stay the same."""
    monkeypatch.setattr(fusion, "fused_cost", lambda *_: cost)
    chain, longer = "uscd(gate=0.30, lame='x')", {"max_new_tokens": 40, "do_sample": True}
    lazy = bound(chain)
    want = decode(lazy, "lazy", **longer)
    assert 0 < lazy.trace.fired["uscd"] < 0.5  # it opens now and then, so that both ways of reading are used
    call = bound(chain)
    assert torch.equal(decode(call, "auto", **longer), want)
    assert call.trace.fusion.startswith("lazy after 24 fused steps" if parts else "fused")
    assert f"a fused step costs {cost:.2f} plain ones" in call.trace.fusion
    assert (call.trace.forwards["lame prompt"] > 0) is parts


def test_the_cost_is_measured_once() -> None:
    """For a model and a batch size."""
    model, forwards = tiny_model(7), []
    hook = model.register_forward_pre_hook(lambda *_: forwards.append(1))
    first = fusion.fused_cost(model, 2, 2)
    assert first > 0 and fusion.fused_cost(model, 2, 2) == first and len(forwards) == 4
    hook.remove()


def test_memory_is_freed_with_the_call() -> None:
    """Neither hooks nor given logits keep it."""
    call = bound("cfg(2.0)")
    decode(call, "fused")
    gone = weakref.ref(call.composite.parts[0][1].streams[0])
    del call
    gc.collect()
    assert gone() is None


def test_the_cache_of_a_fused_run_is_twice_the_plain_one() -> None:
    """At most: second prompts no longer than the first add no padding."""
    held: list[int] = []
    call = bound("uscd(gate=1.0)", prompts=[CODE])
    hook = call.model.register_forward_hook(
        lambda _, __, kwargs, ___: held.append(kwargs["past_key_values"].layers[0].keys.numel()), with_kwargs=True
    )
    decode(call, "fused")
    fused = held[-1]
    decode(bound("", prompts=[CODE]), "lazy")
    hook.remove()
    assert fused == 2 * held[-1]


@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_nothing_grows_over_a_hundred_calls(streams: str) -> None:
    """Python's own memory by tracemalloc (64 KiB over 100 calls), the process's by its resident size (16 MiB)."""

    def calls(count: int) -> None:
        for _ in range(count):
            decode(bound("cfg(2.0) | uscd(gate=1.0, lame='x')"), streams, max_new_tokens=3)
        gc.collect()

    calls(10)
    process = psutil.Process()
    tracemalloc.start()
    traced, resident = tracemalloc.get_traced_memory()[0], process.memory_info().rss
    calls(100)
    grown = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    assert grown < 64 * 1024 and process.memory_info().rss - resident < 16 * 2**20
