"""A constraint that is known by a function alone: next tokens are tried until one is viable (adaptive rejection).

Source: Lipkin et al., arXiv:2504.05410. Tokens are drawn from the law without replacement. Let v be the first viable
one, and S the probability that the tokens before v left over. The weight is S where the token after v is viable too,
or where no token is left after v; otherwise it is p(v).

The weight is an unbiased estimate of the probability R of all viable tokens, whatever v is. The law of what is left
before v is p / S, and r = (R - p(v)) / (S - p(v)) is the probability that the token after v is viable, so that the
expected weight is r S + (1 - r) p(v) = p(v) + r (S - p(v)) = R. The first viable token has the probability p(v) / R,
so that the expected weight of the draws of v is p(v), as the weights of sequential Monte Carlo need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitkit.errors import ScoresError
from logitkit.processors.engine.constraints import Constraint
from logitkit.processors.searches.random_numbers import uniform
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.targets import Constrained, Proposal

MOST = 4096  # rows of which the function is asked at once
FEW = 64  # keys of a row that are found faster without sorting all of them
ORDER = -2  # in place of a token, in the random numbers of the order in which tokens are tried


class FirstViable(NamedTuple):
    """The first viable token of each row, and what the tokens up to the one behind it say.

    Attributes:
        place: place of the token in the order in which the tokens were tried, ``[rows]``; 0 where none is viable.
        weight: unbiased estimate of the probability of all viable tokens, ``[rows]``; 0 where none is viable.
        settled: whether no later token can change the answer, bool ``[rows]``.
    """

    place: Tensor
    weight: Tensor
    settled: Tensor


def first_viable(mass: Tensor, viable: Tensor, counts: Tensor) -> FirstViable:
    """Return the first viable token of each row and its weight; see the module.

    Args:
        mass: probabilities of the tokens in the order in which they were drawn without replacement, ``[rows, tried]``.
        viable: whether each of them is viable, bool ``[rows, tried]``.
        counts: number of tokens of each row that have probability, ``[rows]``.

    By hand: .5 is rejected, so that S = .5; .3 is viable. The weight is .5 if .2 is viable as well, else .3.

    >>> mass = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    >>> found = first_viable(mass, torch.tensor([[False, True, True], [False, True, False]]), torch.tensor([3, 3]))
    >>> found.place.tolist(), [round(weight, 3) for weight in found.weight.tolist()]
    ([1, 1], [0.5, 0.3])
    """
    tried = mass.shape[1]
    found, place = viable.any(-1), viable.int().argmax(-1)
    own = mass.gather(-1, place[:, None])[:, 0]
    before = torch.arange(tried, device=mass.device) < place[:, None]
    left = (1 - (mass * before).sum(-1)).maximum(own)  # rounding may leave less than the token itself
    following = (place + 1).clamp_max(tried - 1)
    is_last = place + 1 >= counts
    after = viable.gather(-1, following[:, None])[:, 0] | is_last
    weight = torch.where(found, torch.where(after, left, own), 0.0)
    settled = torch.where(found, is_last | (place + 1 < tried), counts <= tried)
    return FirstViable(place, weight, settled)


class Rejected(Constrained):
    """``gamma(x) = p(x)`` for texts whose every beginning is viable, and 0 for others and texts that have not ended.

    Tokens are tried in the order of draws without replacement, a few of each row at once, twice as many each time. A
    row without a viable token has weight 0 and is not tried again.

    Args:
        viable: whether rows, ``[rows, length]``, prompts included, are viable; bool ``[rows]``.
        name: of the function, for errors.
        constraints: masks that a token must pass as well; their sums are exact.
    """

    def __init__(self, viable: Callable[[Tensor], Any], name: str, constraints: Sequence[Constraint] = ()) -> None:
        super().__init__(constraints)
        self.viable, self.name = viable, name
        self._dead: Tensor | None = None  # rows that nothing continues, bool [rows]

    def propose(self, rows: Rows) -> Proposal:
        """Return the first viable token of each row, with the estimate of the probability of all viable tokens."""
        logq, log_growth, _ = super().propose(rows)
        if self._dead is None:
            self._dead = torch.zeros_like(rows.finished)
        going = (~(rows.finished | self._dead | (log_growth == -torch.inf))).nonzero()[:, 0]
        tokens, weight = logq.argmax(-1), torch.zeros_like(log_growth)
        if len(going):
            tokens[going], weight[going] = self._tried(rows, going, logq[going].double().exp())
        self._dead = self._dead | (~rows.finished & (weight == 0))
        return Proposal(logq, log_growth + weight.log(), tokens)

    def select(self, index: Tensor) -> None:
        """Keep what belongs to the rows with these numbers."""
        self._dead = None if self._dead is None else self._dead[index]

    def _tried(self, rows: Rows, going: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first viable token of some rows, and its weight, ``[going]`` each.

        Args:
            rows: all rows.
            going: numbers of the rows to continue, ``[going]``.
            mass: probabilities of their next tokens, float64 ``[going, vocab]``.
        """
        keys = mass / _exponential(rows, going, mass) if rows.run.sampling else mass
        counts = (mass > 0).sum(-1)
        tokens, weight = torch.zeros_like(going), torch.zeros_like(mass[:, 0])
        viable = torch.zeros(len(going), 0, dtype=torch.bool, device=mass.device)
        open_rows, tried = torch.arange(len(going), device=mass.device), 0
        while len(open_rows):
            width = min(max(2, 2 * tried), mass.shape[1])
            order = _likeliest(keys[open_rows], width)
            wanted = torch.arange(tried, width, device=mass.device) < counts[open_rows, None]
            prefixes = rows.ids[going[open_rows]][:, None].expand(-1, width - tried, -1)
            grown = torch.cat([prefixes, order[:, tried:, None]], dim=-1)[wanted]
            answers = torch.zeros_like(wanted)
            answers[wanted] = self._asked(grown)
            rows.run.cost.notes["asked"] = rows.run.cost.notes.get("asked", 0) + len(grown)
            viable = torch.cat([viable, answers], dim=1)
            found = first_viable(mass[open_rows].gather(-1, order), viable, counts[open_rows])
            tokens[open_rows] = order.gather(-1, found.place[:, None])[:, 0]
            weight[open_rows] = found.weight
            open_rows, viable, tried = open_rows[~found.settled], viable[~found.settled], width
        return tokens, weight

    def _asked(self, rows: Tensor) -> Tensor:
        """Return whether rows are viable, bool ``[rows]``.

        Raises:
            ScoresError: the function returns another shape, or other values than truth values.
        """
        answers = []
        for part in rows.split(MOST):
            said, given = self.viable(part), torch.tensor(torch.nan)
            with suppress(TypeError, ValueError, RuntimeError):  # what is no row of truth values
                given = torch.as_tensor(said)
            if given.shape != (len(part),) or given.dtype != torch.bool:
                raise ScoresError(
                    f"smc: {self.name} must return True or False for each of {len(part)} rows, got shape "
                    f"{[*given.shape]} of {given.dtype}; correct the function"
                )
            answers.append(given.to(rows.device))
        return torch.cat(answers)


def _likeliest(keys: Tensor, count: int) -> Tensor:
    """Return the numbers of the largest keys of each row in order, the lower number first of equal ones.

    Args:
        keys: ``[rows, vocab]``.
        count: how many.
    """
    if count > FEW:
        return keys.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    best = keys.topk(min(count + 1, keys.shape[1]))
    if bool((best.values[:, 1:] < best.values[:, :-1]).all()):  # `topk` orders equal keys in any way
        return best.indices[:, :count]
    return keys.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def _exponential(rows: Rows, going: Tensor, mass: Tensor) -> Tensor:
    """Return independent exponential numbers of each next token of some rows, of the shape of ``mass``.

    Tokens in the order of ``exponential / mass`` are drawn from ``mass`` without replacement.
    """
    run, particles = rows.run, len(rows) // rows.run.prompts
    numbers = uniform(run.seeds[rows.prompt[going]], going % particles, rows.ids.shape[1] - run.start, ORDER)
    drawn = torch.empty_like(mass)
    for row, seed in zip(drawn, (numbers * 2.0**53).long().tolist(), strict=True):
        row.exponential_(generator=torch.Generator(device=mass.device).manual_seed(seed))
    return drawn
