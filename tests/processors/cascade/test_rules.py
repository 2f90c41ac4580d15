"""Deferral rules: by hand, as properties, and against a loop over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade.rules import TOKEN_RULES, TokenRule
from reference.speculation import by_hand, laws

INF = torch.inf
Q = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
P = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("rule", "alpha", "want"),
    [
        ("chow", 0.4, [0.6, 0.3, 0.1]),  # .6 >= 1 - .4
        ("chow", 0.39, [0.2, 0.7, 0.1]),
        ("diff", 0.1, [0.6, 0.3, 0.1]),  # .6 >= .7 - .1
        ("diff", 0.09, [0.2, 0.7, 0.1]),
        ("opt", 0.25, [0.6, 0.3, 0.1]),  # TV = .4: .6 >= .7 - .1
        ("opt", 0.24, [0.2, 0.7, 0.1]),
        ("token_v1", 0.2, [0.6 + 0.4 * 0.2, 0.4 * 0.7, 0.4 * 0.1]),  # A = {0}: q >= .5
        ("token_v2", 0.5, [0.6 + 0.1 * 0.2, 0.3 + 0.1 * 0.7, 0.1 * 0.1]),  # A = {0, 1}: p >= .2
        ("token_v3", 0.5, [0.7 * 0.2, 0.3 + 0.7 * 0.7, 0.7 * 0.1]),  # A = {1}: p >= .35
        ("js", 0.2, [0.6, 0.3, 0.1]),  # the divergence is .13 bits
        ("js", 0.1, [0.2, 0.7, 0.1]),
    ],
)
def test_worked_examples(rule: TokenRule, alpha: float, want: list[float]) -> None:
    """q = (.6, .3, .1), p = (.2, .7, .1)."""
    alpha += 1e-9 if rule != "js" else 0.0  # the examples sit on their thresholds
    got = deferral.token_law(rule, Q, P, alpha=alpha).exp()
    torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from([r for r in TOKEN_RULES if r != "js"]),
    alpha=st.floats(0.01, 0.99),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
@settings(deadline=None)
def test_equals_the_equations_token_by_token(seed: int, rule: TokenRule, alpha: float, temperature: float) -> None:
    """Every rule, tempered and greedy laws; normalised to 1e-12."""
    small, large = laws(seed)
    q, p = deferral.tempered(small, temperature), deferral.tempered(large, temperature)
    got = deferral.token_law(rule, small, large, alpha=alpha, drawn_small=q, drawn_large=p).exp()
    for r in range(len(q)):
        rows = [x[r].exp().tolist() for x in (q, p, small, large)]
        want = by_hand(rule, rows[0], rows[1], alpha, rows[2], rows[3])
        torch.testing.assert_close(got[r], torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(got.sum(-1), torch.ones(len(q), dtype=torch.float64), rtol=0, atol=1e-12)
    assert not torch.isnan(got).any()


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(TOKEN_RULES))
@settings(deadline=None)
def test_full_trust_is_the_small_model(seed: int, rule: TokenRule) -> None:
    """alpha = 1: pi is q, bit for bit; and no large forward is needed, except under opt."""
    small, large = laws(seed)
    assert torch.equal(deferral.token_law(rule, small, large, alpha=1.0), small)
    assert bool(deferral.settled(rule, small, alpha=1.0).all()) == (rule != "opt")


@given(seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_no_trust_is_the_large_model_where_the_paper_says_so(seed: int) -> None:
    """alpha = 0: chow is p at any temperature; token_v2 and token_v3 are greedy p with greedy laws."""
    small, large = laws(seed)
    assert torch.equal(deferral.token_law("chow", small, large, alpha=0.0), large)
    q, p = deferral.tempered(small, 0), deferral.tempered(large, 0)
    for rule in ("token_v2", "token_v3"):
        greedy = deferral.token_law(rule, small, large, alpha=0.0, drawn_small=q, drawn_large=p)  # type: ignore[arg-type]
        assert torch.equal(greedy.argmax(-1), large.argmax(-1))
        torch.testing.assert_close(greedy.exp(), p.exp())


def test_diff_and_v1_at_zero_are_not_lossless() -> None:
    """A small model that is surer than the large one overrides it: q = (.9, .1), p = (.4, .6)."""
    q, p = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.4, 0.6]]).log()
    for rule in ("diff", "token_v1"):
        greedy = {"drawn_small": deferral.tempered(q, 0), "drawn_large": deferral.tempered(p, 0)}
        assert int(deferral.token_law(rule, q, p, alpha=0.0, **greedy).argmax()) == 0  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(TOKEN_RULES), alpha=st.floats(0, 1), cold=st.booleans())
@settings(deadline=None)
def test_what_is_settled_does_not_depend_on_the_large_model(
    seed: int, rule: TokenRule, alpha: float, cold: bool
) -> None:
    """On settled rows pi is q whatever p is, the most hostile one-hot included."""
    small, large = laws(seed, scale=4.0)
    one_hot = torch.full_like(large, -INF).scatter(1, small.argmin(-1, keepdim=True), 0.0)
    q = deferral.tempered(small, 0 if cold else 1)
    rows = deferral.settled(rule, small, alpha=alpha, drawn_small=q)
    for p in (large, one_hot):
        drawn = deferral.tempered(p, 0 if cold else 1)
        pi = deferral.token_law(rule, small, p, alpha=alpha, drawn_small=q, drawn_large=drawn)
        assert torch.equal(pi[rows], q[rows])


def test_restricted_keeps_what_the_scores_leave() -> None:
    """A masked token stays masked; where the large model likes nothing that is left, the scores' own law."""
    scores = torch.tensor([[0.0, -INF, 0.0], [-INF, 1.0, -INF]])
    logits = torch.tensor([[1.0, 9.0, 1.0], [3.0, -INF, 3.0]])
    torch.testing.assert_close(
        deferral.restricted(logits, scores).exp(), torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    )


LOGPS = torch.tensor([[-1.0, -3.0, -2.0, 0.0], [-4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("rule", "alpha", "want"),
    [
        ("sum", 0.0, [-6.0, -4.0, -INF]),
        ("average", 0.0, [-2.0, -4.0, -INF]),
        ("quantile", 0.0, [-3.0, -4.0, -INF]),
        ("quantile", 0.25, [-2.5, -4.0, -INF]),  # halfway between -3 and -2
        ("quantile", 1.0, [-1.0, -4.0, -INF]),
    ],
)
def test_sequence_scores_by_hand(rule: deferral.SequenceRule, alpha: float, want: list[float]) -> None:
    """Of outputs of three tokens, one and none."""
    assert deferral.sequence_score(LOGPS, MASK, rule, alpha=alpha).tolist() == want
    nothing = deferral.sequence_score(LOGPS[:1, :0], MASK[:1, :0], rule, alpha=alpha)
    assert nothing.tolist() == [-INF]


@given(values=st.lists(st.floats(-10, 0), min_size=1, max_size=30), alpha=st.floats(0, 1))
@settings(deadline=None)
def test_the_quantile_is_numpys(values: list[float], alpha: float) -> None:
    """Linear interpolation."""
    import numpy as np

    row = torch.tensor([values], dtype=torch.float64)
    got = deferral.sequence_score(row, torch.ones_like(row).bool(), "quantile", alpha=alpha)
    assert float(got) == pytest.approx(float(np.quantile(values, alpha)), abs=1e-9)


@given(values=st.lists(st.integers(-5, 0), min_size=1, max_size=30), rate=st.floats(0, 1))
@settings(deadline=None)
def test_a_threshold_never_defers_more_than_asked(values: list[int], rate: float) -> None:
    """At most the rate, and the next larger score would exceed it."""
    scores = torch.tensor(values, dtype=torch.float64)
    threshold = deferral.threshold_for_rate(scores, rate)
    assert int((scores < threshold).sum()) <= rate * len(values) + 1e-6
    if threshold < math.inf:
        assert int((scores <= threshold).sum()) > rate * len(values) - 1e-6


def test_bad_input() -> None:
    """An empty calibration set, NaN, ranges."""
    with pytest.raises(ParameterError, match="at least one item, got 'an empty calibration set'"):
        deferral.threshold_for_rate(torch.tensor([]), 0.5)
    with pytest.raises(ParameterError, match="scores must be numbers, got 'NaN'"):
        deferral.threshold_for_rate(torch.tensor([0.0, torch.nan]), 0.5)
    with pytest.raises(ParameterError, match="rate must be"):
        deferral.threshold_for_rate(torch.tensor([0.0]), 1.5)
    with pytest.raises(ParameterError, match="alpha must be"):
        deferral.sequence_score(LOGPS, MASK, "quantile", alpha=2.0)
    with pytest.raises(ParameterError, match="logps must be numbers, got 'NaN'"):
        deferral.sequence_score(LOGPS * torch.nan, MASK, "sum")
