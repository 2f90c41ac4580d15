"""Controllers equal folds by hand, and a plain fold over the model's own probabilities in every mode of generating."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.engine import History, Prompts, as_stream
from logitkit.processors.samplers import AdaptiveP, Mirostat
from logitkit.processors.samplers.controllers import mirostat_kept
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.agreement import ScoreRecorder

LAW = torch.tensor([[1 / 2, 1 / 4, 1 / 8, 1 / 8]]).log()  # 1, 2, 3 and 3 bits
PROMPTS = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,), adds_specials=False)


def history() -> History:
    """A model whose next token has one distribution after every row."""
    return History(PROMPTS, (), stream=as_stream(lambda rows: LAW.expand(len(rows), 4)))


def kept(processor: Any, *tokens: int) -> list[int]:
    """The tokens that may follow the prompt and these tokens."""
    scores = processor(torch.tensor([[0, *tokens]]), LAW)
    return (scores[0] > -torch.inf).nonzero()[:, 0].tolist()


def test_mirostat_by_hand() -> None:
    """With tau = 1 and eta = 1 the limit is 2 bits, then falls to 3 - log2 3 and rises to 4 - log2 3."""
    mirostat = Mirostat(tau=1.0, eta=1.0, history=history())
    assert kept(mirostat) == [0, 1]
    assert kept(mirostat, 1) == [0]  # 1/4 of the kept 3/4 is log2 3 bits: the limit is 2 - (log2 3 - 1) = 1.42
    assert kept(mirostat, 1, 0) == [0, 1]  # the only token is 0 bits: 1.42 - (0 - 1) = 2.42
    assert kept(mirostat, 1, 0, 0, 0) == [0, 1, 2, 3]  # 2/3 is 0.58 bits: 2.83, then 3.25


def test_a_token_that_mirostat_removed_counts_with_its_probability() -> None:
    """Token 2 was not kept; its 3 bits lower the limit to 0, which only the best token reaches."""
    assert kept(Mirostat(tau=1.0, eta=1.0, history=history()), 2) == [0]
    assert kept(Mirostat(tau=1.0, eta=0.5, history=history()), 2) == [0]  # 2 - 0.5 * 2 = 1


def test_eta_0_keeps_the_limit() -> None:
    """Whatever was chosen, tokens of up to 2 tau bits stay."""
    mirostat = Mirostat(tau=1.0, eta=0.0, history=history())
    assert kept(mirostat) == kept(mirostat, 3, 3, 3) == [0, 1]


def test_mirostat_keeps_as_many_as_beams_need() -> None:
    """The best token stays at a limit of 0 bits, and two, or all that are possible, where two are needed."""
    limit = torch.zeros(1)
    assert mirostat_kept(LAW, limit, 1).tolist() == [[True, False, False, False]]
    assert mirostat_kept(LAW, limit, 2).tolist() == [[True, True, False, False]]
    assert mirostat_kept(LAW, limit, 9).all()
    single = torch.tensor([[0.0, -torch.inf]])
    assert mirostat_kept(single, limit, 2).tolist() == [[True, False]]


def test_adaptive_p_by_hand() -> None:
    """With target 1/2 and decay 1/2 the sums begin at 1 and 2; a token of 1/4 moves the mean to 3/8, the aim to 5/8."""
    adaptive = AdaptiveP(target=0.5, decay=0.5, history=history())

    def want(aim: float) -> Tensor:
        distance = (LAW.exp() - aim).abs() / 0.3
        return 5 - 10 * distance**2 / (1 + distance)

    torch.testing.assert_close(adaptive(torch.tensor([[0]]), LAW), want(0.5))
    after = adaptive(torch.tensor([[0, 1]]), LAW)
    torch.testing.assert_close(after, want(0.625))
    assert after[0, 0] == pytest.approx(3.7745, abs=1e-4) and after[0, 1] == pytest.approx(-1.9444, abs=1e-4)
    # S = 1/2 + 3/8 = 7/8, W = 2 again: mean 7/16, aim 9/16
    torch.testing.assert_close(adaptive(torch.tensor([[0, 1, 0]]), LAW), want(0.5625))


def test_adaptive_p_clips_its_aim() -> None:
    """After many improbable tokens the aim of a high target is 1, after probable ones that of a low target is 0."""
    high = AdaptiveP(target=0.9, decay=0.5, history=history())(torch.tensor([[0] + [3] * 30]), LAW)
    assert high.argmax() == 0 and high[0, 0] == pytest.approx(5 - 10 * (0.5 / 0.3) ** 2 / (1 + 0.5 / 0.3), abs=1e-4)
    low = AdaptiveP(target=0.05, decay=0.5, history=history())(torch.tensor([[0] * 30]), LAW)
    assert low[0, 2] == pytest.approx(5 - 10 * (0.125 / 0.3) ** 2 / (1 + 0.125 / 0.3), abs=1e-4)


def test_adaptive_p_decays_at_most_as_in_llama_cpp() -> None:
    """A decay above 0.99 acts as 0.99, and a target below 0 returns the scores themselves."""
    rows = torch.tensor([[0, 1, 2]])
    one, other = (AdaptiveP(decay=decay, history=history())(rows, LAW) for decay in (0.99, 1.0))
    assert torch.equal(one, other)
    assert AdaptiveP(target=-0.5, history=history())(rows, LAW) is LAW


def test_an_impossible_token_in_a_row_moves_nothing() -> None:
    """A token of probability 0, as beams of probability 0 hold, changes no limit, and gives no NaN."""
    law = torch.tensor([[0.5, 0.5, 0.0]]).log()
    past = History(PROMPTS, (), stream=as_stream(lambda rows: law.expand(len(rows), 3)))
    for processor in (Mirostat(tau=0.6, eta=1.0, history=past), AdaptiveP(history=past)):
        scores = processor(torch.tensor([[0, 2, 2]]), law)
        assert not scores.isnan().any() and torch.isfinite(scores[0, :2]).all()


def test_rules() -> None:
    """Values outside the ranges are errors."""
    for values in ({"tau": -1.0}, {"eta": math.nan}):
        with pytest.raises(ParameterError, match=r"Mirostat: (tau|eta) must be a (finite )?number >= 0"):
            Mirostat(**values, history=history())
    with pytest.raises(ParameterError, match=r"decay must be a finite number >= 0 and <= 1, got 1\.5"):
        AdaptiveP(decay=1.5, history=history())


@pytest.mark.parametrize("target", [-1.0, -0.01, -7.0])
def test_every_target_below_0_switches_adaptive_p_off(target: float) -> None:
    """As in llama.cpp: the scores themselves."""
    scores = torch.tensor([[1.0, 2.0, -torch.inf]])
    assert AdaptiveP(target=target, history=history())(torch.tensor([[0]]), scores) is scores


def test_without_a_model_a_miss_is_named() -> None:
    """Another engine shows every step; a row that no step showed cannot be folded."""
    processor = Mirostat(history=History(PROMPTS, (), stream=None))
    with pytest.raises(ModelError, match="there is no model to read them"):
        processor(torch.tensor([[0, 1]]), LAW)


def plain_mirostat(past: list[Tensor], tokens: list[int], tau: float, eta: float, keep: int) -> float:
    """The limit in bits after tokens with these past log-probabilities, in plain Python."""
    limit = 2 * tau
    for logp, token in zip(past, tokens, strict=True):
        order = sorted(range(len(logp)), key=lambda number: (-float(logp[number]), number))
        left = [number for place, number in enumerate(order) if -logp[number] / math.log(2) <= limit or place < keep]
        mass = sum(math.exp(logp[number]) for number in left) if token in left else 1.0
        limit -= eta * (-math.log2(math.exp(logp[token]) / mass) - tau)
    return limit


@settings(max_examples=40, deadline=None)
@given(
    laws=st.lists(st.lists(st.integers(-6, 6), min_size=4, max_size=4), min_size=1, max_size=5),
    tokens=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    tau=st.floats(0.1, 4),
    eta=st.floats(0, 2),
)
def test_mirostat_equals_the_plain_fold(laws: list[list[int]], tokens: list[int], tau: float, eta: float) -> None:
    """For any past distributions and tokens the limit is that of the definition."""
    logits = torch.tensor(laws, dtype=torch.float64) + torch.arange(4) * 0.01
    past = History(PROMPTS, (), stream=as_stream(lambda rows: logits[rows.shape[1] - 1].expand(len(rows), 4)))
    processor = Mirostat(tau=tau, eta=eta, history=past)
    chosen = tokens[: len(laws)]
    limit = processor.limits(torch.tensor([[0, *chosen]]))[0, 0]
    want = plain_mirostat(list(logits.log_softmax(-1)), chosen, tau, eta, 1)
    assert float(limit) == pytest.approx(want, abs=1e-9)


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3},
    "assisted": {"assistant_model": tiny_model(1)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@torch.no_grad()
def model_scores(row: Tensor) -> Tensor:
    """The scores after a row at temperature 0.8, from one forward without a cache."""
    return tiny_model()(row[None], use_cache=False).logits[0, -1] / 0.8


@pytest.mark.parametrize("mode", MODES)
def test_mirostat_in_every_mode(mode: str) -> None:
    """Every step keeps the tokens of a plain fold over the model's own distributions, also in a used call."""
    chain = "temperature(0.8) | mirostat(tau=2.0, eta=0.7)"
    texts = "abcabcabc" if mode in ("assisted", "lookup") else ["abcabcabc", "one"]
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), texts)
    for _ in range(2):
        recorder = ScoreRecorder()
        torch.manual_seed(1)
        call.generate(max_new_tokens=6, **{"do_sample": False, **MODES[mode]}, logits_processor=[recorder])
        rows = [(row, after) for ids, scores in recorder.seen for row, after in zip(ids, scores, strict=True)]
        checked = [check_row(call, row, after, keep=2 if mode == "beams" else 1) for row, after in rows]
        assert sum(checked) >= 4


def check_row(call: Any, row: Tensor, after: Tensor, keep: int) -> bool:
    """Compare what a step kept with the plain fold, apart from tokens at the limit; False: nothing to compare."""
    width = call.prompts.width
    prompt = int(call.prompts.rows(row[None])[0])
    own = torch.tensor(call.prompts.tokens(prompt))
    tail = row[width:].tolist()
    if 257 in tail:
        return False  # the row has ended
    scores = [model_scores(torch.cat([own, row[width : width + count]])) for count in range(len(tail) + 1)]
    past = [each.double().log_softmax(-1) for each in scores]
    limit = plain_mirostat(past[:-1], tail, 2.0, 0.7, keep)
    possible = after > -torch.inf
    own_scores = (scores[-1], (0.8 * scores[-1]).log_softmax(-1) / 0.8)  # the second under beams
    if not any(torch.allclose(after[possible], each[possible], atol=1e-4) for each in own_scores):
        return False  # scores of a draft model, or of no model
    bits = -past[-1] / math.log(2)
    clear = (bits - limit).abs() > 1e-3
    want = (bits <= limit) | (bits <= bits.sort().values[keep - 1])
    assert torch.equal(possible[clear], want[clear]), (tail, limit)
    return True
