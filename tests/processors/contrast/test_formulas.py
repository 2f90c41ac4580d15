"""Contrastive formulas: worked examples, properties, and comparison with their definitions in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.contrast import Confidence, cad, cfg, confidence, contrastive, dexperts, uscd
from logitkit.processors.contrast.formulas import uscd_gate
from logitkit.processors.engine.scores import fit

INF = math.inf
P = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
Q = torch.tensor([[0.25, 0.6, 0.1, 0.05]]).log()
FORMULAS = {
    "uscd_diff": lambda a, b: uscd(a, b, rho=0.5, gate=1.0, head=0.1, form="diff"),
    "uscd_ratio": lambda a, b: uscd(a, b, rho=0.5, gate=1.0, head=0.1, form="ratio"),
    "contrastive": lambda a, b: contrastive(a, b, beta=0.7, alpha=0.2),
    "cfg": lambda a, b: cfg(a, b, scale=2.5),
    "cad": lambda a, b: cad(a, b, alpha=0.5),
    "dexperts": lambda a, b: dexperts(a, b, a.flip(0), alpha=1.5),
}


def rows(seed: int, masked: bool = True) -> torch.Tensor:
    """Three random rows of 20 logits, some tokens impossible."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, 20, generator=generator)
    if masked:
        logits[torch.rand(3, 20, generator=generator) < 0.2] = -INF
        logits[:, seed % 20] = 1.0
    return logits


def test_uscd_diff_by_hand() -> None:
    """At rho = 1/2 the weights p - q/2 are .375, 0, .15 and -.025; tokens 0 and 2 get 5/7 and 2/7."""
    got = uscd(P, Q, rho=0.5, gate=1.0, head=0.0, form="diff").exp()
    torch.testing.assert_close(got, torch.tensor([[5 / 7, 0.0, 2 / 7, 0.0]]))


def test_uscd_ratio_by_hand() -> None:
    """At rho = 1 the weights p / q are 2, 1/2 and 2; the impossible token stays impossible."""
    got = uscd(P, Q, rho=1.0, gate=1.0, head=0.0, form="ratio").exp()
    torch.testing.assert_close(got, torch.tensor([[4 / 9, 1 / 9, 4 / 9, 0.0]]))


def test_uscd_head_by_hand() -> None:
    """head = 1 keeps the tokens 0 and 1, whose probability is at least 1/4; their weights are 2 and 1/2."""
    got = uscd(P, Q, rho=1.0, gate=1.0, head=1.0, form="ratio").exp()
    torch.testing.assert_close(got, torch.tensor([[0.8, 0.2, 0.0, 0.0]]))


def test_uscd_falls_back_to_the_standard_stream() -> None:
    """At rho = 1 equal streams remove every token; the row stays p, where the released code yields NaN."""
    got = uscd(P, P, rho=1.0, gate=1.0, head=0.0, form="diff")
    torch.testing.assert_close(got.exp(), P.exp())


def test_uscd_leaves_sure_rows_as_they_came() -> None:
    """The 2-norm of (.5, .3, .2) is .616, so a gate of .6 does not fire and a gate of .62 fires."""
    assert torch.equal(uscd(P, Q, gate=0.6), P)
    assert not torch.equal(uscd(P, Q, gate=0.62), P)


@pytest.mark.parametrize(
    ("measure", "want"),
    [("norm", math.sqrt(0.38)), ("max", 0.5), ("margin", 0.2), ("entropy", 1 - 1.0296530 / math.log(4))],
)
def test_confidence_by_hand(measure: Confidence, want: float) -> None:
    """Each measure of the row (.5, .3, .2, 0) has the value computed by hand."""
    assert float(confidence(P, measure)) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(("theta", "gate"), [(0.005, 0.894), (0.0035, 0.626)])
def test_the_gate_is_the_released_threshold_at_32000_tokens(theta: float, gate: float) -> None:
    """norm**2 equals u**2 (V - 1) + 1/V, where u is the unbiased standard deviation of the probabilities."""
    assert math.sqrt(theta**2 * 31999 + 1 / 32000) == pytest.approx(gate, abs=1e-3)
    p = torch.rand(1, 500, dtype=torch.float64).softmax(-1)
    norm = confidence(p.log()).double()
    torch.testing.assert_close(norm**2, p.std(-1) ** 2 * 499 + 1 / 500, rtol=1e-5, atol=0)


def test_contrastive_by_hand() -> None:
    """At alpha = .6 tokens of at least .3 are plausible; at beta = 1 their weights p / q are 2 and 1/2."""
    got = contrastive(P, Q, beta=1.0, alpha=0.6).exp()
    torch.testing.assert_close(got, torch.tensor([[0.8, 0.2, 0.0, 0.0]]))


def test_cfg_by_hand() -> None:
    """At scale = 2 the weights p**2 / q are 1, .15 and .4, with sum 1.55."""
    got = cfg(P, Q, scale=2.0).exp()
    torch.testing.assert_close(got, torch.tensor([[1, 0.15, 0.4, 0.0]]) / 1.55)


def test_cad_by_hand() -> None:
    """CAD at alpha = 1 equals CFG at scale = 2."""
    torch.testing.assert_close(cad(P, Q, alpha=1.0), cfg(P, Q, scale=2.0))


def test_dexperts_by_hand() -> None:
    """At alpha = 1 the result is base times expert over antiexpert: (.5, .5) (.8, .2) / (.5, .5) = (.8, .2)."""
    base, expert, anti = (torch.tensor([[x, 1 - x]]).log() for x in (0.5, 0.8, 0.5))
    torch.testing.assert_close(dexperts(base, expert, anti, alpha=1.0).exp(), torch.tensor([[0.8, 0.2]]))


def test_dexperts_with_base_as_expert_is_cfg() -> None:
    """With the base as expert, DExperts at strength a equals CFG at scale 1 + a."""
    p, q = rows(0), rows(1)
    got = dexperts(p, p, q, alpha=0.5)
    kept = (p > -INF) & (q > -INF)
    want = cfg(p.masked_fill(~kept, -INF), q, scale=1.5)
    torch.testing.assert_close(got.masked_fill(~kept, -INF).log_softmax(-1), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "neutral",
    [
        lambda a, b: uscd(a, b, rho=0.0),
        lambda a, b: uscd(a, b, gate=0.0),
        lambda a, b: contrastive(a, b, beta=0.0),
        lambda a, b: cfg(a, b, scale=1.0),
        lambda a, b: cad(a, b, alpha=0.0),
        lambda a, b: dexperts(a, b, b, alpha=0.0),
    ],
)
def test_neutral_strength_returns_the_first_stream_itself(neutral: object) -> None:
    """At the neutral strength every formula returns the first tensor itself."""
    p = rows(0)
    assert neutral(p, rows(1)) is p  # type: ignore[operator]


@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(FORMULAS)))
@settings(deadline=None)
def test_a_distribution_over_what_was_possible(seed: int, name: str) -> None:
    """Each result has no NaN, sums to one, keeps tokens impossible, and is the same for log-probabilities."""
    p, q = rows(seed), rows(seed + 1)
    got = FORMULAS[name](p, q)
    assert not torch.isnan(got).any()
    assert bool((got[p == -INF] == -INF).all())
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3))
    torch.testing.assert_close(FORMULAS[name](p.log_softmax(-1), q.log_softmax(-1)), got, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_cfg_is_cad_one_stronger(seed: int) -> None:
    """CFG at scale 1.7 equals CAD at alpha = .7, which equals the published formula on raw logits."""
    p, q = rows(seed, masked=False), rows(seed + 1, masked=False)
    raw = (1 + 0.7) * p - 0.7 * q  # CAD as published, on raw logits
    torch.testing.assert_close(cad(p, q, alpha=0.7).exp(), raw.softmax(-1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cfg(p, q, scale=1.7), cad(p, q, alpha=0.7))


@given(seed=st.integers(0, 10_000), rho=st.floats(0.05, 2), head=st.floats(0.01, 3))
@settings(deadline=None)
def test_uscd_equals_its_definition_token_by_token(seed: int, rho: float, head: float) -> None:
    """Both forms equal a loop over tokens in float64."""
    p, q = rows(seed, masked=False).double().softmax(-1), rows(seed + 1, masked=False).double().softmax(-1)
    for form in ("diff", "ratio"):
        want = torch.zeros_like(p)
        for r in range(len(p)):
            for v in range(p.shape[1]):
                weight = p[r, v] - rho * q[r, v] if form == "diff" else p[r, v] / q[r, v] ** rho
                want[r, v] = max(float(weight), 0.0) if p[r, v] >= head / p.shape[1] else 0.0
            want[r] = want[r] / want[r].sum() if want[r].sum() > 0 else p[r]
        got = uscd(p.log().float(), q.log().float(), rho=rho, gate=1.0, head=head, form=form).exp()  # type: ignore[arg-type]
        torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-4)


def test_a_token_only_the_second_stream_forbids_keeps_its_score() -> None:
    """A token that only the second stream makes impossible keeps its score under the first stream."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    torch.testing.assert_close(cfg(p, q, scale=2.0).exp(), torch.tensor([[1 / 3, 2 / 3]]))


def test_fit_widens_and_narrows() -> None:
    """`fit` fills missing ids with -inf and removes surplus ids."""
    row = torch.tensor([[1.0, 2.0]])
    assert fit(row, 3).tolist() == [[1.0, 2.0, -INF]]
    assert fit(row, 1).tolist() == [[1.0]]


@pytest.mark.parametrize("measure", ["norm", "max", "margin", "entropy"])
def test_a_vocabulary_of_one_is_certain(measure: Confidence) -> None:
    """The only token has probability 1, which is confidence 1 under every measure; no rows have no confidence."""
    assert confidence(torch.tensor([[3.0], [-2.0]]), measure).tolist() == [1.0, 1.0]
    assert confidence(torch.zeros(0, 4), measure).shape == (0,)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_rows_stay_no_rows(name: str) -> None:
    """Every formula maps zero rows to zero rows."""
    assert FORMULAS[name](torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_a_row_at_the_threshold_is_contrasted() -> None:
    """A gate fires at its threshold and not above: confidence 1/4 of four equal tokens, and 1 of a certain one."""
    equal, certain = torch.zeros(1, 4), torch.tensor([[0.0, -INF]])
    assert uscd_gate(equal, gate=0.25, measure="max").fired.tolist() == [True]
    assert uscd_gate(equal, gate=0.25 - 1e-6, measure="max").fired.tolist() == [False]
    assert uscd_gate(certain, gate=1.0).fired.tolist() == [True]
    assert uscd_gate(certain, gate=1 - 1e-6).fired.tolist() == [False]


@pytest.mark.parametrize(
    ("expert", "antiexpert", "want"),
    [
        ([1.0, 0.0], [0.5, 0.5], [2 / 3, 1 / 3]),  # weights .5 * 1/.5 and .5
        ([0.5, 0.5], [1.0, 0.0], [1 / 3, 2 / 3]),  # weights .5 * .5/1 and .5
        ([1.0, 0.0], [1.0, 0.0], [1 / 2, 1 / 2]),  # weights .5 and .5
    ],
)
def test_dexperts_keeps_the_base_where_an_expert_forbids_a_token(expert: Any, antiexpert: Any, want: Any) -> None:
    """Token 1 is impossible under expert, antiexpert or both, and keeps its score under the base, at both signs."""
    base, expert, antiexpert = (torch.tensor([row]).log() for row in ([0.5, 0.5], expert, antiexpert))
    torch.testing.assert_close(dexperts(base, expert, antiexpert).exp(), torch.tensor([want]))
    torch.testing.assert_close(dexperts(base, antiexpert, expert, alpha=-1.0).exp(), torch.tensor([want]))


def test_default_strengths_are_the_published_ones() -> None:
    """USCD: rho .7 over the head of 1/6 leaves .5 - .175 and .2 - .07; CFG: scale 1.5; CAD: alpha .5.

    Contrastive: beta .5 among tokens of at least .1 times .5.
    """
    torch.testing.assert_close(uscd(P, Q).exp(), torch.tensor([[5 / 7, 0.0, 2 / 7, 0.0]]))
    sure = torch.tensor([[0.9, 0.1, 0.0, 0.0]]).log()  # the norm is .906, above the gate of .894
    assert torch.equal(uscd(sure, Q), sure)
    weights = torch.tensor([[0.5**1.5 / 0.25**0.5, 0.3**1.5 / 0.6**0.5, 0.2**1.5 / 0.1**0.5, 0.0]])
    torch.testing.assert_close(cfg(P, Q).exp(), weights / weights.sum())
    torch.testing.assert_close(cad(P, Q), cfg(P, Q))
    p, q = torch.tensor([[0.5, 0.45, 0.05, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()
    torch.testing.assert_close(contrastive(p, q).exp(), torch.tensor([[0.5, 0.45, 0.05, 0.0]]))
    p = torch.tensor([[0.5, 0.451, 0.049, 0.0]]).log()
    torch.testing.assert_close(contrastive(p, q).exp(), torch.tensor([[0.5, 0.451, 0.0, 0.0]]) / 0.951)
    torch.testing.assert_close(contrastive(p, Q, alpha=0.5).exp()[0, 0], torch.tensor(1 / (1 + 0.451 / 0.6**0.5)))


def test_the_gate_uses_the_measure() -> None:
    """Of (.5, .3, .2) the maximum .5 is below the gate .55, and the norm .616 is above it."""
    assert torch.equal(uscd(P, Q, gate=0.55), P)
    assert not torch.equal(uscd(P, Q, gate=0.55, measure="max"), P)
