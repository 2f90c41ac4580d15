"""Every token-level deferral rule at every alpha on one passage, from teacher-forced distributions.

Both models' distributions are known at every position of the passage, so the cascade's distribution under each rule
and alpha is known too. The sweep computes it from one sorting of each distribution instead of one per alpha.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.cascade import TOKEN_RULES, rules, uncertainty
from logitkit.processors.engine import js_bits

ALPHAS = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]


def sweep(small: Tensor, large: Tensor, tokens: Tensor, last: int) -> dict[str, Any]:
    """Evaluate every rule at every alpha on one passage.

    Args:
        small, large: log-probabilities (nats) before each of ``tokens``, ``[tokens, vocab]``.
        tokens: the text, ``[tokens]``.
        last: number of tokens of the last word.

    Returns:
        For each rule a list over `ALPHAS` of (bits of the text under the cascade, mean deferral, whether greedy
        decoding under the cascade writes the last word).
    """
    word = [logp[-last:] for logp in (small, large)]
    greedy = dict(zip(("sampling_small", "sampling_large"), (rules.tempered(logp, 0) for logp in word), strict=True))
    masses = ResampledMasses(small, large)
    q, p = (logp.exp().gather(-1, tokens[:, None])[:, 0] for logp in (small, large))
    results: dict[str, Any] = {}
    for rule in TOKEN_RULES:
        results[rule] = []
        for alpha in ALPHAS:
            resampled = masses(rule, alpha)
            accepted = masses.accepted(rule, alpha, q, p, resampled)
            bits = -torch.log2(q * accepted + p * resampled).sum()
            pi = rules.cascade_distribution(rule, *word, alpha=alpha, **greedy)
            written = bool((pi.argmax(-1) == tokens[-last:]).all())
            results[rule].append([float(bits), float(resampled.mean()), written])
    return results


class ResampledMasses:
    """The mass of the small distribution that a rule resamples from the large one: `rules.resampled_mass` for a sweep.

    Args:
        small, large: log-probabilities (nats), ``[tokens, vocab]``.
    """

    def __init__(self, small: Tensor, large: Tensor) -> None:
        q, p = small.exp(), large.exp()
        self.best_small, self.best_large = q.amax(-1), p.amax(-1)
        self.variation, self.js = (q - p).clamp_min(0).sum(-1), js_bits(small, large)
        self.by_small = q.sort(-1).values
        self.by_large, order = p.sort(-1)
        self.below_small, self.below_large = self.by_small.cumsum(-1), q.gather(-1, order).cumsum(-1)

    def threshold(self, rule: str, alpha: float) -> Tensor:
        """Return the probability from which a rule of the form ``token_v*`` accepts a token, ``[tokens]``."""
        return (1 - alpha) * self.best_large if rule == "token_v3" else self.best_large - alpha

    def __call__(self, rule: str, alpha: float) -> Tensor:
        """Return the resampled mass before each token, ``[tokens]``, 0 to 1."""
        whole_rows = {
            "chow": self.best_small < 1 - alpha,
            "diff": self.best_small < self.best_large - alpha,
            "opt": self.best_small < self.best_large - alpha * self.variation - 1e-6,
            "js": self.js > alpha,
        }
        if alpha == 1.0:
            return torch.zeros_like(self.best_small)
        if rule in whole_rows:
            return whole_rows[rule].float()
        values, below = (self.by_small, self.below_small) if rule == "token_v1" else (self.by_large, self.below_large)
        count = torch.searchsorted(values, self.threshold(rule, alpha)[:, None])
        return torch.where(count > 0, below.gather(-1, (count - 1).clamp_min(0)), 0)[:, 0]

    def accepted(self, rule: str, alpha: float, q: Tensor, p: Tensor, resampled: Tensor) -> Tensor:
        """Return whether the text's own token is accepted when the small model samples it, ``[tokens]``.

        Args:
            rule, alpha: the rule.
            q, p: probabilities of the text's tokens under the small and the large model, ``[tokens]``.
            resampled: the resampled mass before each token.
        """
        if alpha == 1.0 or not rule.startswith("token"):
            return 1 - resampled
        return ((q if rule == "token_v1" else p) >= self.threshold(rule, alpha)).float()


def positions(small: Tensor, large: Tensor, tokens: Tensor) -> dict[str, list[float]]:
    """Return for each position the measures of crossover, and each model's bits and hit for the text's token."""
    results: dict[str, Any] = {"js": js_bits(small, large), "entropy": uncertainty(small)}
    for name, logp in {"small": small, "large": large}.items():
        results[f"{name}_bits"] = -logp.gather(-1, tokens[:, None])[:, 0] / math.log(2)
        results[f"{name}_hit"] = (logp.argmax(-1) == tokens).float()
    return {name: [round(value, 5) for value in values.tolist()] for name, values in results.items()}
