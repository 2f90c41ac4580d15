"""The width of rows of scores, and the tokens that rows of scores make impossible.

Models and processors mask a token with ``-inf`` or with the least finite number of their dtype. logitkit treats the
two alike: every formula reads its logits through `with_infinite_masks`, or asks `is_impossible`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# A logit so far below the largest of its row has probability 0 even in double precision. The bound is below the
# differences between the logits of any language model, and above -65504, the least number of fp16.
LEAST_DIFFERENCE = -30_000.0

# Of the running step: scores, their version counter, and the scores with -inf for impossible tokens.
_MASKED: ContextVar[list[tuple[Tensor, int, Tensor]] | None] = ContextVar("masked scores of a step", default=None)


@contextmanager
def shared_masks() -> Iterator[None]:
    """Share results of `with_infinite_masks` inside this block; nothing is kept after it."""
    token = _MASKED.set([])
    try:
        yield
    finally:
        _MASKED.reset(token)


def is_impossible(scores: Tensor) -> Tensor:
    """Return which tokens the scores make impossible.

    A token is impossible if its score is ``-inf``, near the least finite number of the dtype, or `LEAST_DIFFERENCE`
    below the largest score of its row, which is where masks of another dtype (``finfo.min`` of fp16 in fp32 scores)
    and masks divided by a temperature are.

    Args:
        scores: logits or log-probabilities, ``[..., vocab]``.

    Returns:
        bool ``[..., vocab]``. NaN is not impossible, and a row that contains NaN is judged by the dtype alone.

    Example:
        >>> import torch
        >>> is_impossible(torch.tensor([[0.0, -torch.inf, torch.finfo(torch.float32).min, -65504.0, -900.0]]))
        tensor([[False,  True,  True,  True, False]])
        >>> is_impossible(torch.tensor([[1e30, 9e29]]))
        tensor([[False, False]])
    """
    if not scores.shape[-1]:
        return torch.zeros_like(scores, dtype=torch.bool)
    least = torch.finfo(scores.dtype).min / 4
    largest = scores.amax(-1, keepdim=True)
    bound = (largest + LEAST_DIFFERENCE).clamp_(min=least)
    # The difference vanishes in a maximum of 1e30, of +inf or of NaN; the dtype alone judges such rows.
    return scores <= torch.where(bound < largest, bound, least)


def with_infinite_masks(scores: Tensor) -> Tensor:
    """Return the scores with ``-inf`` for every token that `is_impossible`; the other scores are bit-identical.

    Args:
        scores: logits or log-probabilities, ``[..., vocab]``; not written to.

    Returns:
        ``[..., vocab]``. Processors of one step share the tensor, so it must not be written to.

    Example:
        >>> import torch
        >>> with_infinite_masks(torch.tensor([[1.0, torch.finfo(torch.float32).min]]))
        tensor([[1., -inf]])
    """
    known = _MASKED.get()
    if known is None or scores.is_inference():  # writing to an inference tensor does not change its version
        return scores.masked_fill(is_impossible(scores), -torch.inf)
    for tensor, version, masked in known:
        if tensor is scores and scores._version == version:
            return masked
    masked = scores.masked_fill(is_impossible(scores), -torch.inf)
    known.append((scores, scores._version, masked))
    return mark_masked(masked)


def mark_masked(scores: Tensor) -> Tensor:
    """Note for the rest of the step that ``-inf`` is the only mask of these scores, and return them."""
    known = _MASKED.get()
    if known is not None and not scores.is_inference():
        known.append((scores, scores._version, scores))
    return scores


def masked_log_softmax(logits: Tensor, masked: float = -torch.inf) -> Tensor:
    """Return log-probabilities with one number for every impossible token, in two operations.

    A token that `is_impossible` has a log-probability of at most `LEAST_DIFFERENCE` and changes no other
    log-probability, so that its mask need not be looked for before. In a row whose scores are so large that
    differences vanish (1e30), tokens below the largest one are impossible here, though not in `is_impossible`.

    Args:
        logits: logits or log-probabilities, ``[..., vocab]``; not written to.
        masked: the number in place of the log-probability of an impossible token.

    Returns:
        fp32, nats, ``[..., vocab]``: a new tensor, which the caller may write to. NaN stays NaN.

    Example:
        >>> import torch
        >>> masked_log_softmax(torch.tensor([[0.0, torch.finfo(torch.float32).min, 0.0]])).exp()
        tensor([[0.5000, 0.0000, 0.5000]])
        >>> masked_log_softmax(torch.tensor([[0.0, -torch.inf]]), masked=7.0)
        tensor([[0., 7.]])
    """
    if logits.dtype == torch.float16:  # its least numbers, divided by a temperature, lie above the bound
        logits = with_infinite_masks(logits)
    return torch.threshold_(logits.float().log_softmax(-1), LEAST_DIFFERENCE, masked)


def at_width(logits: Tensor, width: int) -> Tensor:
    """Bring logits of a second stream to the width of the scores; masks stay as they are.

    Args:
        logits: ``[..., own width]``.
        width: width of the scores.

    Returns:
        ``[..., width]``: missing ids are -inf, ids beyond ``width`` are cut off. Not to be written to.

    Example:
        >>> import torch
        >>> at_width(torch.tensor([[1.0, 2.0]]), 3), at_width(torch.tensor([[1.0, 2.0]]), 1)
        (tensor([[1., 2., -inf]]), tensor([[1.]]))
    """
    missing = width - logits.shape[-1]
    if missing > 0:
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
    return logits[..., :width] if missing else logits


def fit(logits: Tensor, width: int) -> Tensor:
    """Bring logits of a second stream to the width of the scores.

    Models that share a tokenizer may pad their vocabularies to different widths; padded ids have no token. Masks of
    the second stream become -inf.

    Args:
        logits: ``[rows, own width]``.
        width: width of the scores.

    Returns:
        ``[rows, width]``: missing ids are -inf, ids beyond ``width`` are cut off. Not to be written to.

    Example:
        >>> import torch
        >>> fit(torch.tensor([[1.0, 2.0]]), 3), fit(torch.tensor([[1.0, 2.0]]), 1)
        (tensor([[1., 2., -inf]]), tensor([[1.]]))
    """
    return at_width(with_infinite_masks(logits), width)


def are_usable(maxima: Tensor) -> Tensor:
    """Return which maxima of rows are scores, neither NaN nor infinite nor the number that masks a token.

    Example:
        >>> import torch
        >>> are_usable(torch.tensor([1.0, torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).min]))
        tensor([ True, False, False, False, False])
    """
    finite = torch.finfo(maxima.dtype)
    least = finite.min / 4 * (1 - finite.eps)  # the next number above a quarter of the least one
    return maxima == maxima.clamp(least, finite.max)  # False for NaN


def unusable_row(scores: Tensor) -> tuple[int, str] | None:
    """Return the first row without a usable maximum, and the maximum in words; None: every row has one.

    Args:
        scores: ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> unusable_row(torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]]))
        (1, 'only -inf')
    """
    maxima = scores.amax(-1)
    faulty = (~are_usable(maxima)).nonzero()
    if not len(faulty):
        return None
    row = int(faulty[0])
    maximum = float(maxima[row])
    return row, "NaN" if maximum != maximum else "+inf" if maximum > 0 else "only -inf"


def within_width(scores: Tensor, *logits: Tensor) -> Tensor:
    """Return the scores with ``-inf`` for ids that a second stream is too narrow to have.

    Args:
        scores: logits or log-probabilities of the generating model, ``[rows, vocab]``.
        logits: of each second stream that decides at every step, ``[rows, own width]``.

    Returns:
        ``[rows, vocab]``; the scores themselves where no stream is narrower.

    Example:
        >>> import torch
        >>> within_width(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0]]))
        tensor([[1., -inf]])
    """
    width = min(stream.shape[-1] for stream in logits)
    if width >= scores.shape[-1]:
        return scores
    return torch.nn.functional.pad(scores[..., :width], (0, scores.shape[-1] - width), value=-torch.inf)
