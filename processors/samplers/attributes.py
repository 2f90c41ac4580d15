"""Attributes of a continuation whose log-probability follows from its tokens: length, variety, texts in it.

Each attribute is a fold over the continuation. It knows ``log P(attribute | continuation so far)``, which is exact for
a finished continuation; for an unfinished one it states the assumption that it makes about the rest. Folds are computed
for all rows and candidates at once, on the device of the rows.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import torch
from torch import Tensor

from logitkit.processors.samplers.text_search import TextSearch

LEAST = -1e4  # nats: log P of an attribute that a continuation cannot have any more; finite, so that no beam dies


def precise(device: torch.device) -> torch.dtype:
    """Return the dtype of values on a device: float64, or float32 on devices that lack it.

    Example:
        >>> precise(torch.device("cpu")), precise(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


class Attribute(Protocol):
    """An attribute as a fold over the tokens of continuations.

    Attributes:
        size: how many whole numbers the state of a row has.
    """

    size: int

    def initial(self, prompts: Tensor) -> Tensor:
        """Return the states before the first token, int64 ``[rows, size]``.

        Args:
            prompts: number of the prompt of each row, ``[rows]``.
        """

    def advance(self, states: Tensor, tails: Tensor, tokens: Tensor) -> Tensor:
        """Return the states after one more token, which is no end token, int64 ``[rows, candidates, size]``.

        Args:
            states: of the rows, ``[rows, size]``.
            tails: the tokens after the prompts, ``[rows, count]``.
            tokens: the tokens that may follow each row, ``[rows, candidates]``.
        """

    def value(self, states: Tensor, count: int, ended: bool) -> Tensor:
        """Return ``log P(attribute | continuation)``, nats, `precise` ``[...]``.

        Args:
            states: ``[..., size]``.
            count: number of tokens of the continuations.
            ended: whether an end token follows.
        """


class Length:
    """The continuation has about a number of tokens: ``P(attribute | n tokens) = exp(-((n - tokens) / spread)^2 / 2)``.

    An unfinished continuation is assumed to end at each further place with probability ``1 / (tokens + 1)``. The end
    token does not count.

    Args:
        tokens: the number of tokens.
        spread: tokens by which the number may differ.

    Example:
        >>> length = Length(3, 1.0)
        >>> length.log_probability(4, True), length.log_probability(5, True)  # one and two spreads: -1^2 / 2, -2^2 / 2
        (-0.5, -2.0)
    """

    size = 0

    def __init__(self, tokens: int, spread: float) -> None:
        self.tokens, self.spread = tokens, spread
        self._unfinished = functools.lru_cache(maxsize=4096)(self._mean)

    def __reduce__(self) -> tuple[type[Length], tuple[int, float]]:
        return type(self), (self.tokens, self.spread)

    def initial(self, prompts: Tensor) -> Tensor:
        """Return states without numbers: the length of a row is known."""
        return prompts.new_zeros(len(prompts), 0)

    def advance(self, states: Tensor, tails: Tensor, tokens: Tensor) -> Tensor:
        """Return states without numbers."""
        return states.new_zeros(*tokens.shape, 0)

    def value(self, states: Tensor, count: int, ended: bool) -> Tensor:
        """Return the log-probability; see the class."""
        value = self.log_probability(count, ended)
        return torch.full(states.shape[:-1], value, dtype=precise(states.device), device=states.device)

    def log_probability(self, count: int, ended: bool) -> float:
        """Return the log-probability of a continuation of this many tokens; see the class."""
        return max(LEAST, self._final(count) if ended else self._unfinished(count))

    def _final(self, count: int) -> float:
        return -(((count - self.tokens) / self.spread) ** 2) / 2

    def _mean(self, count: int) -> float:
        """Return the log of the mean over the places at which an unfinished continuation may end."""
        hazard = 1 / (self.tokens + 1)
        more = range(max(self.tokens - count, 0) + math.ceil(12 * self.spread) + 1)
        if hazard == 1:
            return self._final(count)
        terms = [math.log(hazard) + k * math.log1p(-hazard) + self._final(count + k) for k in more]
        largest = max(terms)
        return largest + math.log(sum(math.exp(term - largest) for term in terms))


class Varied:
    """No group of tokens repeats: each token that completes a group seen before costs one nat.

    Args:
        tokens: size of the groups.

    Example:
        >>> varied, row = Varied(2), torch.tensor([[5, 6, 5]])
        >>> state = varied.initial(torch.tensor([0]))  # no group of the row repeats
        >>> varied.value(varied.advance(state, row, torch.tensor([[6, 7]])), 4, False)  # "5 6" twice; "5 7" is new
        tensor([[-1., -0.]], dtype=torch.float64)
    """

    size = 1

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def initial(self, prompts: Tensor) -> Tensor:
        """Return 0, the number of repetitions."""
        return prompts.new_zeros(len(prompts), 1)

    def advance(self, states: Tensor, tails: Tensor, tokens: Tensor) -> Tensor:
        """Return the number of repetitions."""
        before = states[:, None].expand(*tokens.shape, 1)
        if tails.shape[1] < self.tokens:
            return before
        groups = tails.unfold(1, self.tokens, 1)  # [rows, groups, tokens]
        begins = (groups[..., :-1] == tails[:, None, tails.shape[1] - self.tokens + 1 :]).all(-1)
        followed = torch.where(begins, groups[..., -1], -1).sort(-1).values  # [rows, groups]
        places = torch.searchsorted(followed, tokens.contiguous()).clamp_max(followed.shape[1] - 1)
        return before + (followed.gather(1, places) == tokens).long()[..., None]

    def value(self, states: Tensor, count: int, ended: bool) -> Tensor:
        """Return minus the number of repetitions."""
        return -states[..., 0].to(precise(states.device)).clamp_max(-LEAST)


class Contains(TextSearch):
    """All texts occur: each missing byte of an unfinished continuation is assumed to follow with probability 1/e.

    Example:
        >>> contains = Contains(["ab"], [b"a", b"b"])
        >>> state = contains.advance(contains.initial(torch.tensor([0])), torch.zeros(1, 0), torch.tensor([[0]]))
        >>> contains.value(state, 1, False), contains.value(state, 1, True)  # a byte is missing; it ends without it
        (tensor([[-1.]], dtype=torch.float64), tensor([[-10000.]], dtype=torch.float64))
    """

    def value(self, states: Tensor, count: int, ended: bool) -> Tensor:
        """Return the log-probability; see the class."""
        missing = self.missing(states).sum(-1).to(precise(states.device))
        return torch.where(missing > 0, LEAST, 0.0).to(missing) if ended else -missing.clamp_max(-LEAST)


class Avoids(TextSearch):
    """None of the texts occurs, under the assumption of `Contains` about the bytes that follow.

    Example:
        >>> avoids = Avoids(["ab"], [b"a", b"b"])
        >>> state = avoids.advance(avoids.initial(torch.tensor([0])), torch.zeros(1, 0), torch.tensor([[0]]))
        >>> round(avoids.value(state, 1, False).item(), 3)  # log(1 - 1/e)
        -0.459
        >>> avoids.value(avoids.advance(state[:, 0], torch.zeros(1, 1), torch.tensor([[1]])), 2, False).item()
        -10000.0
    """

    def value(self, states: Tensor, count: int, ended: bool) -> Tensor:
        """Return the log-probability; see the class."""
        missing = self.missing(states).to(precise(states.device))
        kept = torch.zeros_like(missing[..., 0]) if ended else (-torch.expm1(-missing)).log().sum(-1)
        return torch.where((missing > 0).all(-1), kept, LEAST)
