"""Log-probabilities of scores, computed once a step for all processors of a chain.

`Composite` shares the results between its processors. A result is found by the identity of the scores tensor and
dropped when the tensor is written to. Scores that a processor of logitkit returns as log-probabilities are marked, and
are not normalised again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from logitkit.processors.engine.memo import Memo
from logitkit.processors.engine.scores import mark_masked, masked_log_softmax, shared_masks

_STEP: ContextVar[Memo[Tensor] | None] = ContextVar("log-probabilities of a step", default=None)
_SHARES: ContextVar[Memo[Tensor] | None] = ContextVar("probabilities of a step", default=None)


@contextmanager
def shared_log_probabilities() -> Iterator[None]:
    """Share results of `log_probabilities`, `probabilities` and masks inside this block; nothing is kept after it."""
    token, shares = _STEP.set(Memo()), _SHARES.set(Memo())
    try:
        with shared_masks():
            yield
    finally:
        _STEP.reset(token)
        _SHARES.reset(shares)


def log_probabilities(scores: Tensor) -> Tensor:
    """Return normalised log-probabilities of each row.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.

    Returns:
        fp32, nats, ``[rows, vocab]``; -inf for tokens masked with -inf or ``finfo.min``.
        Processors of one step share the tensor, so it must not be written to.

    Example:
        >>> import torch
        >>> log_probabilities(torch.tensor([[1.0, 1.0]])).exp()
        tensor([[0.5000, 0.5000]])
    """
    step = _STEP.get()
    known = None if step is None else step.get(scores)
    if known is None:
        known = mark_masked(masked_log_softmax(scores))
        if step is not None:
            step.put(known, scores)
    return known


def probabilities(scores: Tensor) -> Tensor:
    """Return the probabilities of each row.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.

    Returns:
        fp32, ``[rows, vocab]``. Processors of one step share the tensor, so it must not be written to.

    Example:
        >>> import torch
        >>> probabilities(torch.tensor([[1.0, 1.0]]))
        tensor([[0.5000, 0.5000]])
    """
    step, shares = _STEP.get(), _SHARES.get()
    known = None if shares is None else shares.get(scores)
    if known is None:
        logp = None if step is None else step.get(scores)
        known = scores.float().softmax(-1) if logp is None else logp.exp()
        if shares is not None:
            shares.put(known, scores)
    return known


def mark_normalised(logp: Tensor) -> Tensor:
    """Mark fp32 scores as normalised log-probabilities for the rest of the step, and return them."""
    step = _STEP.get()
    return logp if step is None else step.put(mark_masked(logp), logp)
