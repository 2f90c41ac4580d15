"""Drafts that are accepted or replaced follow the target exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade import verification
from logitkit.processors.cascade.rules import TOKEN_RULES, TokenRule
from reference.speculation import laws

Q = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
P = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log()


def test_worked_example() -> None:
    """q = (1/2, 1/2, 0), p = (1/4, 1/4, 1/2): half of the drafts are accepted, the rest become the third token."""
    assert verification.acceptance(Q, P).tolist() == [[0.5, 0.5, 1.0]]
    assert verification.residual(Q, P).tolist() == [[0.0, 0.0, 1.0]]
    assert float(verification.acceptance_rate(Q, P)) == 0.5


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from(TOKEN_RULES),
    alpha=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
)
@settings(deadline=None)
def test_what_comes_out_follows_pi(seed: int, rule: TokenRule, alpha: float, temperature: float) -> None:
    """To 1e-12, under every rule; and drafts are accepted with probability 1 - TV(pi, q)."""
    small, large = laws(seed)
    q, p = deferral.tempered(small, temperature), deferral.tempered(large, temperature)
    pi = deferral.token_law(rule, small, large, alpha=alpha, drawn_small=q, drawn_large=p)
    accept = verification.acceptance(q, pi)
    got = verification.emitted(q, accept, verification.residual(q, pi))
    torch.testing.assert_close(got, pi.exp(), rtol=0, atol=1e-12)
    kept = (q.exp() * accept).sum(-1)
    torch.testing.assert_close(verification.acceptance_rate(q, pi), kept, rtol=0, atol=1e-12)


def test_the_same_law_is_never_rejected() -> None:
    """And the residual of nothing is the law itself, not NaN."""
    assert float(verification.acceptance_rate(P, P)) == 1.0
    torch.testing.assert_close(verification.residual(P, P), P.exp())


@given(seed=st.integers(0, 10_000), alpha=st.floats(0, 1), replace=st.sampled_from(["difference", "scaled"]))
@settings(deadline=None)
def test_lossy_sampling_goes_from_large_to_small(seed: int, alpha: float, replace: verification.Residual) -> None:
    """Normalised everywhere; p at alpha = 0, q at alpha = 1."""
    q, p = laws(seed)
    got = verification.lossy(q, p, alpha=alpha, replace=replace)
    torch.testing.assert_close(got.sum(-1), torch.ones(len(q), dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(verification.lossy(q, p, alpha=0.0, replace=replace), p.exp(), rtol=0, atol=1e-12)
    assert torch.equal(verification.lossy(q, p, alpha=1.0, replace=replace), q.exp())


def test_lossy_checks_its_range() -> None:
    """alpha is a share."""
    with pytest.raises(ParameterError, match="alpha must be"):
        verification.lossy(Q, P, alpha=1.1)
