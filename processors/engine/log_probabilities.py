"""Log-probabilities of scores, worked out once a step for all processors of a chain that need them.

A `Composite` shares them between its processors. Scores are known by the tensor, not by what it holds, and are
forgotten once written to. Scores that a processor of ours returns are normalised already, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from logitkit.processors.engine.memo import Memo

_STEP: ContextVar[Memo[Tensor] | None] = ContextVar("log-probabilities of a step", default=None)


@contextmanager
def shared() -> Iterator[None]:
    """Share what is worked out inside this block; nothing is kept behind it."""
    token = _STEP.set(Memo())
    try:
        yield
    finally:
        _STEP.reset(token)


def log_probabilities(scores: Tensor) -> Tensor:
    """Normalised fp32 log-probabilities of rows of scores, ``[rows, vocab]``; not to be written to."""
    step = _STEP.get()
    known = None if step is None else step.get(scores)
    if known is None:
        known = scores.float().log_softmax(-1)
        if step is not None:
            step.put(known, scores)
    return known


def mark_normalised(logp: Tensor) -> Tensor:
    """Say that these fp32 scores are log-probabilities already, and return them."""
    step = _STEP.get()
    return logp if step is None else step.put(logp, logp)
