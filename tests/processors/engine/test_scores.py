"""Masks of rows of scores: -inf and ``finfo.min`` mean the same to every formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logitkit.processors.cascade import rules, uncertainty_scores, verification
from logitkit.processors.contrast import formulas
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import (
    are_usable,
    fit,
    is_impossible,
    masked_log_softmax,
    with_infinite_masks,
)
from logitkit.processors.ensemble.deepen import search

LEAST = torch.finfo(torch.float32).min
# Of each dtype of a model in fp32 scores, divided by a temperature, and a mask of other libraries.
MASKS = [LEAST, torch.finfo(torch.bfloat16).min, torch.finfo(torch.float16).min, LEAST / 8, -1e9]
Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
FORMULAS: dict[str, Formula] = {
    "cfg": lambda p, q, r: formulas.cfg(p, q, scale=5.0),
    "cfg below 1": lambda p, q, r: formulas.cfg(p, q, scale=0.3),
    "cfg 0": lambda p, q, r: formulas.cfg(p, q, scale=0.0),
    "cad": lambda p, q, r: formulas.cad(p, q, alpha=3.0),
    "contrastive": lambda p, q, r: formulas.contrastive(p, q, beta=2.0, alpha=0.01),
    "dexperts": lambda p, q, r: formulas.dexperts(p, q, r, alpha=2.0),
    "dexperts below 0": lambda p, q, r: formulas.dexperts(p, q, r, alpha=-2.0),
    "uscd diff": lambda p, q, r: formulas.uscd(p, q, gate=1.0),
    "uscd ratio": lambda p, q, r: formulas.uscd(p, q, gate=1.0, form="ratio", head=0.0),
    "log_probabilities": lambda p, q, r: log_probabilities(p),
    "fit": lambda p, q, r: fit(p, 9),
    "js_bits": lambda p, q, r: js_bits(p, q)[:, None],
    "uncertainty": lambda p, q, r: uncertainty_scores.uncertainty(p)[:, None],
    "aleatoric": lambda p, q, r: uncertainty_scores.aleatoric_uncertainty(p)[:, None],
    "margin": lambda p, q, r: uncertainty_scores.margin_uncertainty(p)[:, None],
    "confidence": lambda p, q, r: formulas.confidence(p, "entropy")[:, None],
    "restricted": lambda p, q, r: rules.restricted_to_support(p, q),
    # A row that accepts every token is returned bit for bit, with the kind of its masks.
    "mixture": lambda p, q, r: with_infinite_masks(rules.mixture(_log(p), _log(q), r > 0)),
    "without large": lambda p, q, r: rules.decided_without_large("token_v1", _log(p), alpha=0.9)[:, None].float(),
    "acceptance": lambda p, q, r: verification.acceptance_probability(_log(p), _log(q)),
    "deepen": lambda p, q, r: search(p, r.softmax(-1)[:, :, None] * torch.eye(6)[None], q.softmax(-1), rate=0.1),
}


def _log(logits: Tensor) -> Tensor:
    """Return log-probabilities in which a mask stays as it is."""
    return torch.where(logits < -1e4, logits, logits - with_infinite_masks(logits).logsumexp(-1, keepdim=True))


def test_issue_example() -> None:
    """By hand: token 0 is masked in the second stream only, so it keeps its log-probability; neither mask moves it."""
    first = torch.tensor([[1.0, 2.0]])
    want = formulas.cfg(first, torch.tensor([[-torch.inf, 0.0]]), scale=5.0)
    logp = first.log_softmax(-1)
    by_hand = torch.stack([logp[0, 0], 5 * logp[0, 1]])[None].log_softmax(-1)
    torch.testing.assert_close(want, by_hand)
    assert torch.equal(formulas.cfg(first, torch.tensor([[LEAST, 0.0]]), scale=5.0), want)


@pytest.mark.parametrize("name", FORMULAS)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_masks_mean_the_same(name: str, seed: int) -> None:
    """With random masks of every kind in every stream, a formula answers as with -inf, and gives no NaN."""
    generator = torch.Generator().manual_seed(seed)
    infinite, finite = [], []
    for _ in range(3):
        logits = 3 * torch.randn(4, 6, generator=generator)
        masked = torch.rand(4, 6, generator=generator) < 0.4
        masked[torch.arange(4), torch.randint(0, 6, (4,), generator=generator)] = False  # a row keeps a token
        with_minus_infinity = torch.rand(4, 6, generator=generator) < 0.3  # masks of both kinds in one row
        value = MASKS[int(torch.randint(0, len(MASKS), (1,), generator=generator))]
        infinite.append(logits.masked_fill(masked, -torch.inf))
        finite.append(torch.where(with_minus_infinity, infinite[-1], logits.masked_fill(masked, value)))
    want = FORMULAS[name](*infinite)
    got = FORMULAS[name](*finite)
    assert not want.isnan().any() and not got.isnan().any()
    torch.testing.assert_close(got, want)


def test_ordinary_scores_are_bit_identical() -> None:
    """Only masks change; large but ordinary scores, and rows of any scale, keep every bit."""
    scores = torch.tensor([[-1e6, -1e6 - 700.0, -1e6 + 90.0], [5.0, -700.0, 2.9e4]])
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(with_infinite_masks(scores.to(dtype)), scores.to(dtype))
    half = torch.tensor([[5.0, -900.0, torch.finfo(torch.float16).min]], dtype=torch.float16)
    assert is_impossible(half).tolist() == [[False, False, True]]
    assert is_impossible(torch.tensor([[torch.nan, 0.0, LEAST]])).tolist() == [[False, False, True]]
    assert is_impossible(torch.tensor([[torch.inf, 0.0, LEAST]])).tolist() == [[False, False, True]]
    assert is_impossible(torch.zeros(0, 3)).shape == (0, 3) and is_impossible(torch.zeros(2, 0)).shape == (2, 0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([*MASKS, -torch.inf]), st.sampled_from([0.0, -torch.inf, 1e30]))
def test_masking_log_probabilities_is_masking_logits(seed: int, mask: float, masked: float) -> None:
    """Masks found in log-probabilities are those found in logits, for every kind of mask and offset of a row."""
    generator = torch.Generator().manual_seed(seed)
    logits = 8 * torch.randn(3, 12, generator=generator) + 100 * torch.randn(3, 1, generator=generator)
    hidden = torch.rand(3, 12, generator=generator) < 0.3
    hidden[:, 5] = False
    got = masked_log_softmax(logits.masked_fill(hidden, mask), masked)
    want = logits.masked_fill(hidden, -torch.inf).log_softmax(-1).masked_fill(hidden, masked)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_usable_maxima_at_their_bounds(dtype: torch.dtype) -> None:
    """The largest number and the first one above a quarter of the least one are usable; the quarter itself is not."""
    numbers = torch.finfo(dtype)
    quarter = torch.tensor(numbers.min / 4, dtype=dtype)
    bounds = torch.stack([torch.tensor(numbers.max, dtype=dtype), quarter * (1 - numbers.eps), quarter])
    others = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0], dtype=dtype)
    assert are_usable(torch.cat([bounds, others])).tolist() == [True, True, False, False, False, False, True]
