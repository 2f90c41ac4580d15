"""Comparison of scores, as the laws make it, and where two results differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4  # nats; with and without a KV cache the logits differ in the last bits of fp32


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The place at which a law does not hold.

    Attributes:
        row: number of the row in the batch of the call.
        prefix: token ids of the row, the last of which stands before the token; empty where the law has no rows.
        token: id of the token whose values differ most.
        unit: what the values are: ``score``, ``log-probability`` (in nats) or ``probability``.
        expected, got: the two values.

    >>> print(Evidence(row=1, prefix=(5, 6), token=17, unit="score", expected=0.5, got=2.0))
    score expected 0.5, got 2
    """

    row: int
    prefix: tuple[int, ...]
    token: int
    unit: str
    expected: float
    got: float

    def __str__(self) -> str:
        return f"{self.unit} expected {self.expected:.6g}, got {self.got:.6g}"

    def as_data(self) -> dict[str, Any]:
        """Return the evidence as plain data; a value that is not finite, which JSON lacks, is text such as "-inf"."""
        values = {name: getattr(self, name) for name in ("expected", "got")}
        finite = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        return {"row": self.row, "prefix": list(self.prefix), "token": self.token, "unit": self.unit, **finite}


class LawViolatedError(AssertionError):
    """A law that does not hold, with the place at which two results differ.

    Attributes:
        evidence: the place.
    """

    def __init__(self, message: str, evidence: Evidence) -> None:
        super().__init__(message)
        self.evidence = evidence


def assert_same_distribution(actual: Tensor, expected: Tensor, what: str, ids: Tensor | None = None) -> None:
    """Assert that two tensors of scores give the same softmax, up to `TOLERANCE`, and the same impossible tokens.

    Args:
        actual, expected: scores, ``[rows, vocab]``.
        what: the comparison, for the message.
        ids: the rows of the call, ``[rows, length]``, for the evidence.

    Raises:
        LawViolatedError: they differ; its evidence is the token that differs most.
    """
    actual, expected = actual.detach().float().log_softmax(-1), expected.detach().float().log_softmax(-1)
    assert actual.shape == expected.shape, f"{what}: shape {list(actual.shape)} in place of {list(expected.shape)}"
    masks = (actual == -torch.inf) != (expected == -torch.inf)
    if bool(masks.any()):
        difference = torch.where(masks, torch.maximum(actual, expected).exp(), -1.0)  # the likeliest of these tokens
        raise _violation(f"{what}: other tokens are impossible", difference, actual, expected, "log-probability", ids)
    if torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE):
        return
    difference = torch.where(expected == -torch.inf, -1.0, (actual - expected).abs().nan_to_num(torch.inf))
    size = f"up to {float(difference.max()):.3g} nats apart"
    raise _violation(f"{what}: {size}", difference, actual, expected, "log-probability", ids)


def assert_close_probabilities(
    actual: Tensor, expected: Tensor, allowed: float, what: str, ids: Tensor | None = None
) -> None:
    """Assert that two tensors of scores give probabilities that differ by at most ``allowed``.

    Raises:
        LawViolatedError: they differ by more.
    """
    actual, expected = actual.detach().float().softmax(-1), expected.detach().float().softmax(-1)
    difference = (actual - expected).abs().nan_to_num(torch.inf)
    if float(difference.max()) > allowed:
        size = f"{what} differ by a probability of {float(difference.max()):.3g}"
        raise _violation(size, difference, actual, expected, "probability", ids)


def assert_unchanged(
    actual: Tensor, expected: Tensor, message: str, ids: Tensor | None = None, unit: str = "score"
) -> None:
    """Assert that two tensors, of scores unless ``unit`` says otherwise, are equal bit for bit.

    Raises:
        LawViolatedError: they differ.
    """
    if not torch.equal(actual, expected):
        difference = (actual.detach().double() - expected.detach().double()).abs().nan_to_num(torch.inf)
        difference = torch.where(actual == expected, -1.0, difference)  # two equal infinities
        raise _violation(message, difference, actual, expected, unit, ids)


def assert_masked(before: Tensor, after: Tensor, what: str, ids: Tensor | None = None) -> None:
    """Assert that no score is NaN or +inf, that impossible tokens stay impossible, and that each row keeps a token.

    Raises:
        LawViolatedError: one of them does not hold.
    """
    start = f"{what}: " if what else ""
    wrong = torch.isnan(after) | torch.isposinf(after)
    if bool(wrong.any()):
        raise _violation(f"{start}scores became NaN or +inf", wrong.float(), after, before, "score", ids)
    lifted = (before == -torch.inf) & (after != -torch.inf)
    if bool(lifted.any()):
        raise _violation(f"{start}an impossible token became possible", lifted.float(), after, before, "score", ids)
    assert_choice(before, after, f"{start}a row has no possible token left", ids)


def assert_choice(before: Tensor, after: Tensor, message: str, ids: Tensor | None = None) -> None:
    """Assert that each row keeps a possible token.

    Raises:
        LawViolatedError: a row keeps none; its evidence is the token that was the most probable one.
    """
    empty = ~torch.isfinite(after).any(-1, keepdim=True)
    if bool(empty.any()):
        best = torch.where(empty, before.double(), -torch.inf)
        raise _violation(message, best, after, before, "score", ids)


def _violation(
    message: str, difference: Tensor, actual: Tensor, expected: Tensor, unit: str, ids: Tensor | None
) -> LawViolatedError:
    """Return the error whose evidence is the entry with the largest difference."""
    row, token = divmod(int(difference.flatten().argmax()), difference.shape[-1])
    evidence = Evidence(
        row=row,
        prefix=() if ids is None else tuple(ids[row].tolist()),
        token=token,
        unit=unit,
        expected=float(expected[row, token]),
        got=float(actual[row, token]),
    )
    return LawViolatedError(message, evidence)
