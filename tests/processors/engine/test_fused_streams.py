"""Second streams in the generating model's own forward give the same logits and tokens, with one forward a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, MaxLengthCriteria, StoppingCriteriaList

from fakes import absolute_model, sliding_model
from fusing import PROMPTS, bound, decode, hooks
from logitkit.inspection.streaming import Streamer
from logitkit.processors.transformers_api import cache_of
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.recompute import Recompute

CAUSAL = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
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
    "beams": {"num_beams": 3},
    "static": {"cache_implementation": "static", "do_sample": True, "num_return_sequences": 2},
}


class Watch(LogitsProcessor):
    """Compares the logits of a stream with the slow reference at every step."""

    def __init__(self, stream: Any, slow: Any) -> None:
        self.stream, self.slow, self.worst = stream, slow, 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.worst = max(self.worst, float((self.stream(input_ids) - self.slow(input_ids)).abs().max()))
        return scores


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", CAUSAL)
def test_fused_and_lazy_tokens_are_equal(kind: str, chain: str, mode: str) -> None:
    """The tokens are equal with padded prompts, greedily and with sampling from one seed."""
    call = bound(chain, CAUSAL[kind]())
    fused = decode(call, "fused", **MODES[mode])
    assert call.trace.fusion.state == "fused" and set(call.trace.forwards.values()) == {0}
    assert torch.equal(fused, decode(bound(chain, CAUSAL[kind]()), "lazy", **MODES[mode]))


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("chain", ["cfg(2.0, negative='no')", "uscd(gate=1.0)"])
def test_logits_equal_recomputation(kind: str, chain: str) -> None:
    """The logits of a fused stream differ by less than 1e-4 from a forward over each whole row."""
    call = bound(chain, CAUSAL[kind]())
    (stream,) = call.composite.parts[0][1].streams
    watch = Watch(stream, Recompute(call.model, [list(ids) for ids in stream.own], call.prompts.ids))
    call.composite.parts += (("watch", watch),)
    decode(call, "fused")
    assert watch.worst < 1e-4 and stream.forwards == 0


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=4),
    negative=st.text("xyz", min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_any_prompts(texts: list[str], negative: str, seed: int) -> None:
    """Second prompts may be shorter than, longer than or as long as the first."""
    torch.manual_seed(seed)
    chain = f"cfg(1.7, negative={negative!r})"
    got = bound(chain, prompts=texts).generate(streams="fused", max_new_tokens=5, do_sample=True)
    torch.manual_seed(seed)
    want = bound(chain, prompts=texts).generate(streams="lazy", max_new_tokens=5, do_sample=True)
    assert torch.equal(got, want)


def test_one_forward_a_step() -> None:
    """The model runs one forward a step, and the chain one call; short second prompts are read apart before."""
    call, shapes = bound("cfg(2.0)"), []
    hook = call.model.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.logits.shape[:2])))
    with_hook = decode(call, "fused")
    hook.remove()
    assert shapes[:3] == [(3, 1), (3, 1), (6, 1)]
    assert len(shapes) == 1 + with_hook.shape[1] - call.prompts.width
    assert call.trace.calls == len(shapes) - 1


def test_scores_and_logits_of_generate_are_those_of_its_rows() -> None:
    """output_scores and output_logits equal those of a lazy run, and the returned output holds no cache."""
    call = bound("cfg(2.0)")
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    fused, lazy = (decode(call, streams, **asked) for streams in ("fused", "lazy"))
    assert cache_of(fused) is None
    for name in ("scores", "logits"):
        for mine, theirs in zip(fused[name], lazy[name], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_streaming() -> None:
    """The streamer receives the tokens of the rows of `generate` only."""
    pieces: list[str] = []
    call = bound("cfg(2.0)", prompts=["one prompt"])
    out = decode(call, "fused", streamer=Streamer(tiny_tokenizer(), advance=lambda: None, write=pieces.append))
    assert "".join(pieces) == call.texts(out)[0]


def test_stopping_criteria_see_the_rows_only() -> None:
    """A stopping criterion of the caller receives the rows of `generate` only."""
    call = bound("cfg(2.0)")
    stop = StoppingCriteriaList([MaxLengthCriteria(call.prompts.width + 3)])
    assert decode(call, "fused", stopping_criteria=stop).shape == (3, call.prompts.width + 3)


def test_other_forwards_of_the_model_are_not_changed() -> None:
    """A processor that calls the same model gets logits of its own rows, and no hook remains afterwards."""
    model, answers = tiny_model(), []
    before = hooks(model)

    class CallsModel(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            answers.append(model(input_ids=input_ids).logits.shape)
            return scores

    call = bound("cfg(2.0)", model)
    decode(call, "fused", logits_processor=[CallsModel()])
    assert answers[0][0] == len(PROMPTS)
    assert hooks(model) <= before


def test_an_error_leaves_no_hook() -> None:
    """An error in a processor removes the hooks, and the next call is right."""
    model = tiny_model()
    before = hooks(model)

    class Fails(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("stop")

    call = bound("cfg(2.0)", model)
    with pytest.raises(RuntimeError, match="stop"):
        decode(call, "fused", logits_processor=[Fails()])
    assert hooks(model) <= before
    assert torch.equal(decode(call, "fused"), decode(bound("cfg(2.0)"), "lazy"))


def test_rows_that_the_forward_did_not_compute_are_read_separately() -> None:
    """The logits are those of the requested rows, not those of the last forward."""
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


@pytest.mark.parametrize("other", ["reversed rows", "another token"])
def test_prefetched_logits_of_other_rows_are_dropped(other: str) -> None:
    """For other rows of the same shape, the chain gives the scores of those rows, and counts the step once."""
    call = bound("cfg(2.0) | uscd(gate=1.0, lame='x')")
    readers = [part.streams[0] for _, part in call.composite.parts]
    checked = 0

    class Elsewhere(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            nonlocal checked
            rows = input_ids.flip(0) if other == "reversed rows" else input_ids.clone()
            if other == "another token" and rows.shape[1] > call.prompts.width:
                rows[0, -1] += 1 if rows[0, -1] < 99 else -1
            fresh = bound("cfg(2.0) | uscd(gate=1.0, lame='x')", call.model).composite
            torch.testing.assert_close(call.composite(rows, scores), fresh(rows, scores), atol=1e-4, rtol=0)
            checked += 1
            return scores

    decode(call, "fused", logits_processor=[Elsewhere()])
    assert checked == 12 and all(reader.forwards > 0 for reader in readers)
    assert call.trace.calls == 24 and call.trace.fired == {"uscd": 1.0}
