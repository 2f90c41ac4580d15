"""Speculative verification: emitted tokens follow the target distribution exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade import TOKEN_RULES, TokenRule, rules, verification
from reference.speculation import random_distributions

Q = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
P = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log()


def test_worked_example() -> None:
    """For q = (1/2, 1/2, 0), p = (1/4, 1/4, 1/2) half of the drafts are rejected and become the third token."""
    assert verification.acceptance_probability(Q, P).tolist() == [[0.5, 0.5, 1.0]]
    assert verification.residual_distribution(Q, P).tolist() == [[0.0, 0.0, 1.0]]
    assert float(verification.acceptance_rate(Q, P)) == 0.5


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from(TOKEN_RULES),
    alpha=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
)
@settings(deadline=None)
def test_emitted_tokens_follow_pi(seed: int, rule: TokenRule, alpha: float, temperature: float) -> None:
    """Under every rule the emitted distribution is pi to 1e-12, and the acceptance rate is 1 - TV(pi, q)."""
    small, large = random_distributions(seed)
    q, p = rules.tempered(small, temperature), rules.tempered(large, temperature)
    pi = rules.cascade_distribution(rule, small, large, alpha=alpha, sampling_small=q, sampling_large=p)
    accept = verification.acceptance_probability(q, pi)
    got = verification.emitted_distribution(q, accept, verification.residual_distribution(q, pi))
    torch.testing.assert_close(got, pi.exp(), rtol=0, atol=1e-12)
    kept = (q.exp() * accept).sum(-1)
    torch.testing.assert_close(verification.acceptance_rate(q, pi), kept, rtol=0, atol=1e-12)


def test_equal_distributions_are_never_rejected() -> None:
    """When draft and target are equal, the acceptance rate is 1 and the residual is the target, not NaN."""
    assert float(verification.acceptance_rate(P, P)) == 1.0
    torch.testing.assert_close(verification.residual_distribution(P, P), P.exp())


@given(seed=st.integers(0, 10_000), alpha=st.floats(0, 1), residual=st.sampled_from(["difference", "scaled"]))
@settings(deadline=None)
def test_lossy_sampling_goes_from_large_to_small(seed: int, alpha: float, residual: verification.LossyResidual) -> None:
    """The emitted distribution of lossy sampling sums to one; it is p at alpha 0 and q at alpha 1."""
    q, p = random_distributions(seed)
    got = verification.lossy_distribution(q, p, alpha=alpha, residual=residual)
    torch.testing.assert_close(got.sum(-1), torch.ones(len(q), dtype=torch.float64), rtol=0, atol=1e-12)
    at_zero = verification.lossy_distribution(q, p, alpha=0.0, residual=residual)
    torch.testing.assert_close(at_zero, p.exp(), rtol=0, atol=1e-12)
    assert torch.equal(verification.lossy_distribution(q, p, alpha=1.0, residual=residual), q.exp())


def test_lossy_sampling_checks_its_range() -> None:
    """An alpha above 1 raises a ParameterError."""
    with pytest.raises(ParameterError, match="alpha must be"):
        verification.lossy_distribution(Q, P, alpha=1.1)


@pytest.mark.parametrize(
    ("residual", "want"),
    [
        ("difference", [0.4, 0.3 + 0.2 * 1 / 4, 0.1 + 0.2 * 3 / 4]),
        ("scaled", [0.4, 0.3 + 0.2 * 5 / 12, 0.1 + 0.2 * 7 / 12]),
    ],
)
def test_lossy_sampling_by_hand(residual: verification.LossyResidual, want: list[float]) -> None:
    """For q = (.6, .3, .1), p = (.2, .4, .4) and alpha 1/2, the target is (.4, .8, .8): the draft keeps (.4, .3, .1).

    The rest of .2 goes to the residual: (0, .1, .3) of p - q, or (0, .5, .7) of the target minus q.
    """
    q, p = (torch.tensor([x], dtype=torch.float64).log() for x in ([0.6, 0.3, 0.1], [0.2, 0.4, 0.4]))
    got = verification.lossy_distribution(q, p, alpha=0.5, residual=residual)
    torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64))
    if residual == "difference":
        assert torch.equal(verification.lossy_distribution(q, p, alpha=0.5), got)
