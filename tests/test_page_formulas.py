"""The formulas of docs/processors as mathematics, computed as they are printed, agree with the code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from logitkit.processors import contrast
from logitkit.processors.byte_level.fusion import fuse_distributions
from logitkit.processors.cascade.rules import TokenRule, accepted_tokens, cascade_distribution
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.ensemble.consistency import core
from logitkit.processors.ensemble.fusion import fuse
from logitkit.processors.ngram import NgramStyle, NgramTable

VOCAB = 7
RANDOM = torch.Generator().manual_seed(0)
P, Q, R = (torch.randn(3, VOCAB, generator=RANDOM).double().mul(2).softmax(-1) for _ in range(3))
BEST_P, BEST_Q = P.amax(-1, keepdim=True), Q.amax(-1, keepdim=True)


def agree(logp: Tensor, proportional: Tensor) -> None:
    """Compare log-probabilities with the right side of a formula, which is divided by its sum."""
    wanted = proportional / proportional.sum(-1, keepdim=True)
    torch.testing.assert_close(logp.double().exp(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["diff", "ratio"])
def test_uscd(form: contrast.Form) -> None:
    """Rows above the gate keep p; tokens below head / V become impossible."""
    rho, gate, head = 0.7, 0.6, 2 / 3
    contrasted = (P - rho * Q).clamp_min(0) if form == "diff" else P / Q**rho
    contrasted = torch.where(head / VOCAB <= P, contrasted, 0)
    confidence = (P**2).sum(-1, keepdim=True).sqrt()
    wanted = torch.where(confidence > gate, P, contrasted / contrasted.sum(-1, keepdim=True))
    agree(contrast.uscd(P.log(), Q.log(), rho=rho, gate=gate, head=head, form=form), wanted)


def test_the_other_contrasts() -> None:
    """cfg, cad, contrastive and dexperts."""
    agree(contrast.cfg(P.log(), Q.log(), scale=1.5), Q * (P / Q) ** 1.5)
    agree(contrast.cad(P.log(), Q.log(), alpha=0.5), P * (P / Q) ** 0.5)
    agree(contrast.contrastive(P.log(), Q.log(), beta=0.5, alpha=0.1), torch.where(P >= 0.1 * BEST_P, P / Q**0.5, 0))
    agree(contrast.dexperts(P.log(), Q.log(), R.log(), alpha=1.2), P * (Q / R) ** 1.2)


@pytest.mark.parametrize("rule", ["lift", "literal"])
def test_ngram_style(rule: str) -> None:
    """Evidence of three orders, from counts of a text of nine tokens."""
    text, context, k, weights = [1, 2, 1, 2, 1, 3, 4, 2, 1], [4, 2, 1], 1e-3, (0.1, 0.3, 0.6)
    evidence = torch.zeros(VOCAB).double()
    for n, weight in enumerate(weights, 1):
        last = context[len(context) - n + 1 :]
        grams = [text[start : start + n] for start in range(len(text) - n + 1)]
        counts = [grams.count([*last, token]) for token in range(VOCAB)]
        for token, count in enumerate(counts):
            lift, literal = (count + k) / k, (count + k) / (sum(counts) + k * VOCAB)
            evidence[token] += weight * math.log(lift if rule == "lift" else literal if count else 1)
    table = NgramTable.count([text], size=VOCAB, orders=3)
    got = NgramStyle(table=table, weight=0.2, rule=rule)(torch.tensor([context] * 3), P.log().float())  # type: ignore[arg-type]
    agree(got.log_softmax(-1), P * (0.2 * evidence).exp())


def test_ensembles() -> None:
    """The three ways of `ensemble`, two of `byte_ensemble`, and the default of `core`."""
    weights, log_weights = [0.2, 0.3, 0.5], torch.tensor([0.2, 0.3, 0.5]).log()
    every = torch.stack([P, Q, R])
    share = torch.tensor(weights)[:, None, None]
    agree(fuse(P, [Q, R], weights), (share * every).sum(0))
    agree(fuse(P, [Q, R], weights, "geometric"), (every**share).prod(0))
    agree(fuse(P, [Q, R], weights, "max"), (share * every).amax(0))
    agree(fuse_distributions(every.log(), log_weights), (share * every).sum(0))
    agree(fuse_distributions(every.log(), log_weights, "product"), (every**share).prod(0))
    a, disagreement = 2, (every - every.mean(0)).abs()
    score = ((-a * disagreement).exp() - math.exp(-a)) / (1 - math.exp(-a))
    weight = score.sum(-1) / -(every * every.log()).sum(-1)
    main = (weight[0] / weight.sum(0)).clamp_min(0.5)
    others = (1 - main) * weight[1:] / weight[1:].sum(0)
    score = score / score.mean(-1, keepdim=True)
    agree(core(P, [Q, R]), main[:, None] * P + (others[..., None] * score[1:] * every[1:]).sum(0))


def accepted(rule: TokenRule, alpha: float) -> Tensor:
    """Return the accepted set by the table of the page; q is small, p is large."""
    middle = (P + Q) / 2
    js = (Q * (Q / middle).log2() + P * (P / middle).log2()).sum(-1, keepdim=True) / 2
    torch.testing.assert_close(js_bits(Q.log(), P.log())[:, None].double(), js, rtol=1e-4, atol=1e-6)
    conditions = {
        "chow": 1 - alpha <= BEST_Q,
        "diff": BEST_P - alpha <= BEST_Q,
        "opt": BEST_P - alpha * (Q - P).clamp_min(0).sum(-1, keepdim=True) <= BEST_Q,
        "js": js <= alpha,
        "token_v1": BEST_P - alpha <= Q,
        "token_v2": BEST_P - alpha <= P,
        "token_v3": (1 - alpha) * BEST_P <= P,
    }
    return conditions[rule].expand_as(P)


@pytest.mark.parametrize("rule", ["chow", "diff", "opt", "js", "token_v1", "token_v2", "token_v3"])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6])
def test_cascade(rule: TokenRule, alpha: float) -> None:
    """The accepted set of each rule, and the distribution of the cascade."""
    wanted = accepted(rule, alpha)
    assert torch.equal(accepted_tokens(rule, Q.log(), P.log(), alpha=alpha), wanted)
    got = cascade_distribution(rule, Q.log(), P.log(), alpha=alpha)
    agree(got, Q * wanted + P * (Q * ~wanted).sum(-1, keepdim=True))
