"""A text that rides behind the rows in the generating model's forward: same results, one forward a step, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor

from fakes import absolute_model, sliding_model
from fusing import PROMPTS, bound, decode
from logitkit.errors import ModeError
from logitkit.processors.engine import Binding, CapturedOutputs, riding_text
from logitkit.processors.engine.behind_rows import BehindRows
from logitkit.processors.engine.riding_text import RidingText
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXT = len("OUTPUT ERROR")  # tokens of the text of mti, whose tiny tokenizer knows bytes
CHAINS = [
    "mti(threshold=4.4)",
    "temperature(0.8) | mti(threshold=3.5)",
    "mti(threshold=4.4, gate={'measure': 'entropy', 'above': 4.5})",
    "cfg(2.0) | mti(threshold=4.0)",
    "dola(layers=[1]) | mti(threshold=4.0)",
    "mti(threshold=4.0) | mti(threshold=4.0, negative='another')",
]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "several": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chain", CHAINS)
def test_tokens_equal_those_of_separate_forwards(chain: str, mode: str) -> None:
    """Padded prompts, with and without a second prompt beside the text, greedily and from one seed."""
    lazy, call = bound(chain), bound(chain)
    assert torch.equal(decode(call, "fused", **MODES[mode]), decode(lazy, "lazy", **MODES[mode]))
    assert call.trace.fusion.state == "fused" and call.trace.fired == lazy.trace.fired
    assert not call.trace.forwards["generating model"], "no second cache is read"


@pytest.mark.parametrize("make", [tiny_model, absolute_model])
def test_logits_equal_recomputation(make: Any) -> None:
    """At every step the logits are those of a forward over each whole row and the text."""
    call, worst = bound("mti(threshold=0.0)", make()), []
    text = next(stream for stream in call.composite.streams if isinstance(stream, BehindRows))

    class Watch(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            got = text.of_step(input_ids, scores, torch.tensor([2, 0]))
            for row, logits in zip((2, 0), got, strict=True):
                ids = [*call.prompts.tokens(row), *input_ids[row, call.prompts.width :].tolist(), *text.ids[0].tolist()]
                want = call.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
                worst.append(float((logits - want).abs().max()))
            return scores

    call.composite.parts = (("watch", Watch()), *call.composite.parts)
    decode(call, "fused")
    assert len(worst) == 24 and max(worst) < 1e-4


@settings(max_examples=8, deadline=None)
@given(
    texts=st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=3),
    negative=st.text("xyz", min_size=1, max_size=20),
    seed=st.integers(0, 99),
)
def test_any_prompts_and_texts(texts: list[str], negative: str, seed: int) -> None:
    """Sampled tokens are equal."""
    chain, results = f"mti(threshold=4.2, negative={negative!r})", []
    for streams in ("fused", "lazy"):
        torch.manual_seed(seed)
        results.append(bound(chain, prompts=texts).generate(streams=streams, max_new_tokens=5, do_sample=True))
    assert torch.equal(*results)


def test_one_forward_a_step() -> None:
    """The first forward reads the prompts, and the text behind them; each later one 1 + n tokens a row, in one pass."""
    call, shapes = bound("mti(threshold=0.0)"), []
    hook = call.model.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    decode(call, "fused", max_new_tokens=6)
    hook.remove()
    assert shapes == [(3, call.prompts.width), *[(3, 1 + TEXT)] * 5], "the text behind the prompts is read unhooked"
    assert call.trace.forwards == {"generating model": 0, "negative text behind the row": 1}


def test_hidden_states_are_those_of_the_rows() -> None:
    """Processors that read the state of the last forward get the state at the row's own last token."""
    call, worst = bound("mti(threshold=0.0)"), []
    captured = CapturedOutputs(Binding(call.model, tiny_tokenizer(), call.prompts), hidden=True)

    class Watch(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            got = captured.hidden(input_ids, scores)[0]
            ids = torch.tensor([[*call.prompts.tokens(0), *input_ids[0, call.prompts.width :].tolist()]])
            worst.append(float((got - call.model.base_model(ids).last_hidden_state[0, -1]).abs().max()))
            return scores

    call.composite.parts = (("watch", Watch()), *call.composite.parts)
    decode(call, "fused")
    assert len(worst) == 12 and max(worst) < 1e-4 and captured.misses == 0


def test_logits_behind_other_rows_are_dropped() -> None:
    """A chain that is asked for rows in another order answers for these rows."""
    call = bound("mti(threshold=0.0)")

    class Elsewhere(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            rows, other = input_ids.flip(0), scores.flip(0)
            fresh = bound("mti(threshold=0.0)", call.model).composite
            torch.testing.assert_close(call.composite(rows, other), fresh(rows, other), atol=1e-4, rtol=0)
            return scores

    decode(call, "fused", logits_processor=[Elsewhere()])


@pytest.mark.parametrize(
    ("riding", "text", "first", "then"),
    [(1.4, 1.3, True, True), (1.8, 1.3, False, False), (1.62, 1.3, False, True), (1.72, 1.3, False, False)],
)
def test_worked_example_of_the_choice(riding: float, text: float, first: bool, then: bool) -> None:
    """By hand: each second step asks, so separate forwards cost 1 + 1.3 / 2 = 1.65; a change must save 0.05 steps."""
    costs = {1: 2.0, 5: 2.0 * riding, 4: 2.0 * text}
    plan: Any = SimpleNamespace(model=None, index=[0, 1, 2], streams=(), text=None)
    asked: Any = SimpleNamespace(ids=torch.zeros(1, 4), requests=0, requested_rows=0)
    sizes = set()

    def seconds(_: Any, rows: int, tokens: int, thin: bool) -> float:
        sizes.add((rows, tokens, thin))
        return costs[tokens]

    choice = RidingText(plan, asked, seconds=seconds)
    for start, rides, steps in ((None, first, 4), (asked.ids, then, 12)):
        plan.text = start
        reports = []
        for step in range(steps):
            asked.requests += step % 2
            asked.requested_rows += 2 * (step % 2)
            reports.append(choice.before_forward())
        report = reports[-1]
        assert report is not None and not any(reports[:-1])
        assert (plan.text is not None) is rides and report.state == ("fused" if rides else "lazy")
        assert report.fused_cost == riding
    assert sizes == {(3, 1, False), (3, 5, True), (2, 4, True)}, "two of three rows ask"


def test_earlier_steps_count_less() -> None:
    """By hand: of 4 steps all ask, of the next 12 none: the share is 0.75 * 4 / (0.75 * 4 + 12) = 0.2."""
    plan: Any = SimpleNamespace(model=None, index=[0], streams=(), text=None)
    asked: Any = SimpleNamespace(ids=torch.zeros(1, 4), requests=0, requested_rows=0)
    choice = RidingText(plan, asked, seconds=lambda *_: 1.0)
    shares = []
    for step in range(16):
        asked.requests += step < 4
        asked.requested_rows += step < 4
        if report := choice.before_forward():
            shares += report.request_rates
    assert shares == pytest.approx([1.0, 0.2])


def test_the_choice_follows_the_firing_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 12 tokens behind each row at 2 plain steps, a text that every step needs rides, one that none needs not."""
    monkeypatch.setattr(riding_text, "forward_seconds", lambda _, __, tokens, ___: 1.0 if tokens == 1 else 1.5)
    for threshold, state, forwards in ((0.0, "fused", 4), (9.0, "lazy", 0)):
        call = bound(f"mti(threshold={threshold})")
        decode(call, "auto", max_new_tokens=30)
        assert call.trace.fusion.state == state
        assert call.trace.forwards["negative text behind the row"] == forwards
        assert f"logits requested at {1.0 if forwards else 0.0:.2f} of the recent steps" in call.trace.fusion.reason


@pytest.mark.parametrize(
    ("model", "mode", "reason"),
    [
        (tiny_model, {"cache_implementation": "static"}, "no text can be removed from a cache of the kind static"),
        (tiny_model, {"prompt_lookup_num_tokens": 3}, "a text cannot ride behind drafted tokens"),
        (sliding_model, {}, "no text can be removed from a sliding window"),
    ],
)
def test_where_no_text_can_ride(model: Any, mode: dict[str, Any], reason: str) -> None:
    """The reason is reported, an error where riding is requested, and the tokens are those of separate forwards."""
    prompts = PROMPTS[:1]
    call = bound("mti(threshold=4.0)", model(), prompts)
    want = decode(bound("mti(threshold=4.0)", model(), prompts), "lazy", **mode)
    assert torch.equal(decode(call, "auto", **mode), want)
    assert str(call.trace.fusion) == f"lazy: {reason}"
    with pytest.raises(ModeError, match=f"streams cannot be 'fused', {reason}"):
        decode(call, "fused", **mode)


def test_rows_that_fill_the_context_keep_their_text_out() -> None:
    """A model of 32 positions writes up to its end, although no text fits behind the last tokens."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=272, eos_token_id=None, bos_token_id=None, **sizes)).eval()
    call = bound("mti(threshold=99.0)", model, ["a prompt"])
    assert decode(call, "fused", max_new_tokens=24).shape == (1, 32)


def test_gated_rows_are_read_behind_the_cache() -> None:
    """A gate that opens for some rows needs no second cache, in a bare generate too."""
    call = bound("mti(threshold=0.0, gate={'measure': 'entropy', 'above': 4.5})")
    call.model.generate(
        **call.inputs, logits_processor=call.processors, **call.generate_kwargs, max_new_tokens=12, do_sample=False
    )
    assert 0.1 < call.trace.fired["mti"] < 0.9
    assert call.trace.forwards["generating model"] == 0 < call.trace.forwards["negative text behind the row"]
