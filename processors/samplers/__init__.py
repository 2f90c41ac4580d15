"""Samplers that transformers lacks: truncations, temperatures and penalties.

Formulas over rows of scores: `xtc`, `top_n_sigma`, `p_less`, `top_a`, `tail_free`.
Logits processors: `XTC`, `TopNSigma`, `PLess`, `TopA`, `TailFree`.
"""

from __future__ import annotations

from logitkit.processors.samplers.truncation import p_less, tail_free, top_a, top_n_sigma, xtc
from logitkit.processors.samplers.truncations import XTC, PLess, TailFree, TopA, TopNSigma

__all__ = [
    "XTC",
    "PLess",
    "TailFree",
    "TopA",
    "TopNSigma",
    "p_less",
    "tail_free",
    "top_a",
    "top_n_sigma",
    "xtc",
]
