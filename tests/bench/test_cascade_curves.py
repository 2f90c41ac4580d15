"""The sweep over rules equals the rules; the report says what was measured."""

from __future__ import annotations

import math

import pytest
import torch

from logitkit.bench.cascade_curves import ALPHAS, sweep
from logitkit.processors import deferral
from logitkit.processors.deferral import TOKEN_RULES, TokenRule
from reference.speculation import laws


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_equals_the_rules(rule: TokenRule, seed: int) -> None:
    """Bits, deferral and the last word of each alpha, against the law of every token."""
    small, large = (law.float() for law in laws(seed, rows=12, width=30))
    tokens = torch.randint(0, 29, (12,), generator=torch.Generator().manual_seed(seed))
    tokens[-1] = large[-1].argmax()
    for alpha, (bits, deferred, written) in zip(ALPHAS, sweep(small, large, tokens, 1)[rule], strict=True):
        stands = deferral.trusted(rule, small, large, alpha=alpha)
        pi = deferral.mixture(small, large, stands)
        assert bits == pytest.approx(float(-pi.gather(-1, tokens[:, None]).sum()) / math.log(2), rel=1e-4)
        assert deferred == pytest.approx(float(deferral.deferred(small, stands).mean()), abs=1e-5)
        cold = [deferral.tempered(law[-1:], 0) for law in (small, large)]
        greedy = deferral.token_law(rule, small[-1:], large[-1:], alpha=alpha, drawn_small=cold[0], drawn_large=cold[1])
        assert written == (int(greedy.argmax()) == int(tokens[-1]))
