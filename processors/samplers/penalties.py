"""Penalties on the number of times that a token occurs in its row: frequency and presence penalty."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.scores import are_usable, is_impossible
from logitkit.processors.samplers.row_tokens import RowTokens

__all__ = ["FrequencyPenalty", "PresencePenalty", "token_counts"]

Window = Annotated[int | None, whole("count the last tokens alone, this many; None: all of the row", ge=1)]
CountedRows = Annotated[RowTokens | None, Resource()]
FROM_PROMPT = "count the tokens of the prompt too, not only the new tokens"


def token_counts(input_ids: Tensor, counted: Tensor, width: int, *, window: int | None = None) -> Tensor:
    """Return how often each token occurs in each row.

    Args:
        input_ids: ``[rows, length]``.
        counted: whether each token counts, bool ``[rows, length]``.
        width: of the scores; larger ids are left out.
        window: count the last tokens that count alone, this many; None: all.

    Returns:
        fp32 ``[rows, width]``.

    Example:
        >>> rows = torch.tensor([[2, 0, 2, 2]])
        >>> token_counts(rows, torch.ones_like(rows, dtype=torch.bool), 3)
        tensor([[1., 0., 3.]])
        >>> token_counts(rows, torch.ones_like(rows, dtype=torch.bool), 3, window=2)
        tensor([[0., 0., 2.]])
    """
    if window is not None:
        counted = counted & (counted.flip(-1).cumsum(-1).flip(-1) <= window)
    counted = counted & (input_ids < width)
    counts = torch.zeros((len(input_ids), width), device=input_ids.device)
    return counts.scatter_add_(1, input_ids.clamp(max=width - 1), counted.float())


def penalised(scores: Tensor, penalty: Tensor) -> Tensor:
    """Return the scores minus a penalty. A row of which no token would be left is shifted by its smallest penalty.

    The shift changes no probability. Penalties of 1e38 need it where the penalised tokens are the only possible ones.

    Args:
        scores: ``[rows, vocab]``; scores without a penalty stay bit-identical.
        penalty: ``[rows, vocab]``; any size, below 0 too.

    Example:
        >>> penalised(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]))
        tensor([[0.5000, 2.0000]])
        >>> penalised(torch.tensor([[1.0, -torch.inf]]), torch.tensor([[1e38, 0.0]]))
        tensor([[1., -inf]])
    """
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    limit = torch.finfo(wide.dtype).max / 2
    penalty = penalty.to(wide.dtype).clamp(-limit, limit)
    lowered = (wide - penalty).to(scores.dtype)
    left = are_usable(lowered.amax(-1))
    least = penalty.masked_fill(is_impossible(scores), torch.inf).amin(-1)
    shift = torch.where(left, 0.0, least)[:, None]
    return torch.where(left[:, None], lowered, (wide - (penalty - shift)).to(scores.dtype))


class _CountPenalty(LogitsProcessor):
    """A penalty by the counts of the tokens of a row; a subclass states how many penalties a count is worth."""

    @checked
    def __init__(
        self,
        *,
        penalty: Annotated[float, number("subtracted from the score of a token that occurs", neutral=0)] = 0.5,
        window: Window = None,
        rows: CountedRows = None,
    ) -> None:
        self.penalty, self.window, self.rows = penalty, window, rows or RowTokens()

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        penalty: float,
        window: int | None,
        prompt: Annotated[bool, option(FROM_PROMPT)] = False,
    ) -> Self:
        """Return the penalty that knows prompts, padding and begin token of the call."""
        return cls(penalty=penalty, window=window, rows=RowTokens.of(binding, prompt=prompt))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the penalised scores, ``[rows, vocab]``."""
        if is_neutral(self.penalty, 0):
            return scores
        counts = token_counts(input_ids, self.rows(input_ids), scores.shape[-1], window=self.window)
        return penalised(scores, self.penalty * self.multiples(counts))

    def multiples(self, counts: Tensor) -> Tensor:
        """Return by how many penalties each score falls, ``[rows, vocab]``, from the counts of the tokens."""
        raise NotImplementedError


class FrequencyPenalty(_CountPenalty):
    """Subtract a penalty from the score of a token for each time that the token occurs in the row, as OpenAI does.

    Neither padding nor the begin token counts, and the prompt counts only if it is asked for.

    Args:
        penalty: nats for each occurrence; below 0 repetition is encouraged, 0 returns the scores unchanged.
        window: count the last tokens of the row alone, this many; None: all.
        rows: which tokens count; None: all.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> FrequencyPenalty(penalty=0.5)(torch.tensor([[2, 0, 2]]), torch.zeros(1, 3))
        tensor([[-0.5000,  0.0000, -1.0000]])
    """

    def multiples(self, counts: Tensor) -> Tensor:
        """Return the counts."""
        return counts


class PresencePenalty(_CountPenalty):
    """Subtract a penalty once from the score of every token that occurs in the row, as OpenAI does.

    The parameters and what counts are those of `FrequencyPenalty`; the penalty is in nats.

    Example:
        >>> import torch
        >>> PresencePenalty(penalty=0.5)(torch.tensor([[2, 0, 2]]), torch.zeros(1, 3))
        tensor([[-0.5000,  0.0000, -0.5000]])
    """

    def multiples(self, counts: Tensor) -> Tensor:
        """Return 1 for each token that occurs."""
        return (counts > 0).to(counts.dtype)
