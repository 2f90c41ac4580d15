"""DRY ("don't repeat yourself"): penalise tokens that would continue a repetition, the more the longer it is.

Source: p-e-w, text-generation-webui, pull request 5677; llama.cpp, ``llama_sampler_init_dry``. Changes: breakers are
searched in the bytes of the row, not in tokens.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.samplers.breakers import BreakerTable
from logitkit.processors.samplers.penalties import CountedRows, penalised
from logitkit.processors.samplers.repetitions import Repetitions, RowEnds
from logitkit.processors.samplers.row_tokens import RowTokens
from logitkit.processors.tokens.vocabulary import Vocabulary, vocabulary_of

__all__ = ["DRY"]

BREAKERS = ["\n", ":", '"', "*"]
LARGEST_EXPONENT = 88.72  # log of the largest number of fp32


class DRY(LogitsProcessor):
    r"""Penalise tokens that continue a text which already occurs in the row (DRY, "don't repeat yourself").

    For a token v, let n be the largest number such that the last n tokens of the row also stand directly before an
    earlier v. From ``allowed_length`` on, ``multiplier * base ** (n - allowed_length)`` is subtracted from the score of
    v; the power is at most 3e38. No repetition reaches over a breaker, and a token that contains a breaker is never
    penalised. Neither padding nor the begin token is part of a row.

    Args:
        multiplier: penalty of a repetition of the allowed length, nats; 0 returns the scores unchanged.
        base: factor of the penalty for each further token, at least 1.
        allowed_length: length from which a repetition is penalised.
        window: look at the last tokens of the row alone, this many; 0: all.
        table: the breakers; None: none.
        rows: which tokens are text of the row; None: all.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> rows = torch.tensor([[1, 2, 3, 1, 2]])  # 3 stands behind 1 2, the last two tokens
        >>> DRY(multiplier=0.8, allowed_length=1, base=1.5)(rows, torch.zeros(1, 5))
        tensor([[ 0.0000,  0.0000,  0.0000, -1.2000,  0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        multiplier: Annotated[float, number("penalty of a repetition of the allowed length", ge=0, neutral=0)] = 0.8,
        base: Annotated[float, number("factor of the penalty for each further token", ge=1)] = 1.75,
        allowed_length: Annotated[int, whole("number of repeated tokens from which the next is penalised", ge=0)] = 2,
        window: Annotated[int, whole("look at the last tokens alone, this many; 0: all of the row", ge=0)] = 0,
        table: Annotated[BreakerTable | None, Resource()] = None,
        rows: CountedRows = None,
    ) -> None:
        self.multiplier, self.base, self.allowed_length, self.window = multiplier, base, allowed_length, window
        self._repetitions = Repetitions(table or BreakerTable.of([], []), rows)
        self._largest = math.floor(LARGEST_EXPONENT / math.log(base)) if base > 1 else math.inf
        self._by_length = torch.zeros(0, dtype=torch.float64)
        self._rescues = False

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        multiplier: float,
        base: float,
        allowed_length: int,
        window: int,
        breakers: Annotated[
            list[str], option("texts over which no repetition reaches, wherever they are in the bytes of the row")
        ] = BREAKERS,
        prompt: Annotated[bool, option("the prompt is part of the row")] = True,
    ) -> DRY:
        """Build the processor with breakers in the bytes of the tokenizer.

        Raises:
            ParameterError: an empty breaker.
            ModelError: there are breakers, and the tokenizer is a slow one.
        """
        if not all(breakers):
            raise ParameterError("dry", "breakers", "texts, none empty", breakers)
        table = BreakerTable.of([], [])
        if breakers:
            tokenizer = binding.tokenizer
            known = vocabulary_of(binding.model, tokenizer) if binding.has_model else Vocabulary.of(tokenizer)
            table = BreakerTable.cached(tokenizer, known.token_bytes, breakers)
        return cls(
            multiplier=multiplier,
            base=base,
            allowed_length=allowed_length,
            window=window,
            table=table,
            rows=RowTokens.of(binding, prompt=prompt),
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the penalised scores, ``[rows, vocab]``."""
        if is_neutral(self.multiplier, 0) or input_ids.shape[1] < (2 if self.allowed_length else 1):
            return scores
        tokens, amounts = self._amounts(self._repetitions(input_ids), scores)
        wide = scores.to(amounts.dtype)
        lowered = (wide.gather(1, tokens) - amounts).to(scores.dtype)
        lowered = scores.scatter_reduce(1, tokens, lowered, "amin")
        left = (lowered.amax(-1) > torch.finfo(scores.dtype).min / 4).all()
        if not self._rescues and self._repetitions.checks.check(left, self._rescue):
            return lowered
        penalty = torch.zeros_like(wide).scatter_reduce_(1, tokens, amounts, "amax")
        return penalised(scores, penalty)

    def _rescue(self) -> None:
        """From now on, shift rows of which a penalty of 1e38 would leave no token."""
        self._rescues = True

    def _amounts(self, ends: RowEnds, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens behind each place of the window, and the penalty of each there; ``[rows, places]`` both.

        The penalties have the dtype of the scores, and at least fp32. A token may occur several times.
        """
        length, width = ends.ids.shape[1], scores.shape[-1]
        first = max(0, length - self.window) if self.window else 0
        repeated = torch.minimum(ends.lengths[:, first:], (length - 1 - ends.last_breaker).int()[:, None])
        if first:
            places = torch.arange(1, length - first, dtype=torch.int32, device=scores.device)
            repeated = torch.minimum(repeated, places)
        begin = first + 1
        if not self.allowed_length:  # a repetition of no token counts, also before the first token of the window
            begin, repeated = first, torch.nn.functional.pad(repeated, (1, 0))
        tokens = ends.ids[:, begin:]
        amounts = self._penalties(scores, length).index_select(0, repeated.reshape(-1)).view(repeated.shape)
        amounts = amounts.mul_(ends.weight[:, begin:])
        if not 0 < self._repetitions.table.tokens <= width:  # else the weight of larger ids is 0
            amounts = amounts.masked_fill(tokens >= width, 0.0)
        return tokens.clamp(max=width - 1), amounts

    def _penalties(self, scores: Tensor, length: int) -> Tensor:
        """Return the penalty for each number of repeated tokens in a row of this length, ``[length or more]``."""
        dtype = torch.promote_types(scores.dtype, torch.float32)
        known = self._by_length
        if len(known) < length or known.dtype != dtype or known.device != scores.device:
            counts = torch.arange(2 * length, dtype=torch.float64)
            exponents = (counts - self.allowed_length).clamp(max=self._largest)
            penalties = (self.multiplier * self.base**exponents).masked_fill(counts < self.allowed_length, 0.0)
            self._by_length = penalties.clamp(max=torch.finfo(dtype).max).to(scores.device, dtype)
        return self._by_length
