"""Constraints as steps of a chain: `ConstraintStep` removes the tokens that a `Constraint` does not allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ScoresError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.prefix_states import PrefixStates, Tokens
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.scores import are_usable

State = TypeVar("State")
Mask = NDArray[np.bool_]


class RowReader:
    """The tokens after the prompt of each row, on the host.

    Args:
        prompts: the prompts of the call.
        settings: the settings of the call, which state where a continuation starts and which tokens end it.
    """

    def __init__(self, prompts: Prompts, settings: CallSettings) -> None:
        self.prompts, self.settings = prompts, settings

    def __call__(self, rows: Tensor) -> tuple[list[int], Tokens, Mask]:
        """Return prompt numbers, tokens after the prompt, ``[rows, count]``, and whether each row has ended.

        Args:
            rows: token ids, ``[rows, length]``.
        """
        index = self.prompts.rows(rows).tolist()
        tails: Tokens = rows[:, self.settings.start :].long().cpu().numpy()
        ended = np.zeros(len(tails), dtype=bool)
        for end in self.settings.end_tokens():
            ended |= (tails == end).any(axis=1)
        return index, tails, ended


class ConstraintStep(LogitsProcessor, Generic[State]):
    """A `Constraint` whose answer follows from a state of the row, as a step of a chain.

    A subclass gives the state before the first token (``initial``), after one more token (``advance``), and the tokens
    that may follow (``permitted``). A state of None means that the row has broken the constraint already.

    As a step, it leaves a row alone that has ended or that has broken the constraint. Beam search keeps rows of
    probability 0 where too few others are left, and assisted decoding asks about drafts behind a token that will be
    rejected; the chain itself never writes such a row.

    Args:
        prompts: the prompts of the call.
        settings: the settings of the call.
        width: number of token ids of the vocabulary.

    Attributes:
        owner: name of the step in errors.
        beyond: whether ids beyond the vocabulary are permitted.
        dead_end: why a row may be left without a token, for the error.
    """

    owner: ClassVar[str]
    beyond: ClassVar[bool] = False
    dead_end: ClassVar[str] = "loosen the constraint"

    def __init__(self, prompts: Prompts, settings: CallSettings, width: int) -> None:
        self._reader, self._width = RowReader(prompts, settings), width
        self._states: PrefixStates[State | None] = PrefixStates(self.initial, self._next)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._states = PrefixStates(self.initial, self._next)

    def initial(self, prompt: int) -> State | None:
        """Return the state before the first token after a prompt."""
        raise NotImplementedError

    def advance(self, state: State, token: int) -> State | None:
        """Return the state after one more token; None: the token breaks the constraint."""
        raise NotImplementedError

    def permitted(self, state: State) -> Mask | None:
        """Return which tokens may follow, ``[width]``; None: every token. The caller may not write to the mask."""
        raise NotImplementedError

    def _next(self, state: State | None, token: int) -> State | None:
        return None if state is None else self.advance(state, token)

    def allowed(self, rows: Tensor) -> Tensor:
        """Return whether each token may follow each row, bool ``[rows, vocab]``; see `Constraint`.

        No token may follow a row that has broken the constraint. Every token may follow a row that has ended.

        Args:
            rows: token ids, ``[rows, length]``.
        """
        index, tails, ended = self._reader(rows)
        masks = torch.ones((len(rows), self._width), dtype=torch.bool)
        for row, state in enumerate(self._states(index, tails)):
            if not ended[row]:
                mask = np.zeros(self._width, bool) if state is None else self.permitted(state)
                if mask is not None:
                    masks[row] = torch.from_numpy(mask)
        return masks.to(rows.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with tokens at -inf that the constraint does not allow, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.

        A search may drop rows without a token; such a row is noted and keeps its scores.

        Raises:
            ScoresError: no token is left in a row; the error says whether this step or an earlier one removed the last.
        """
        index, tails, ended = self._reader(input_ids)
        states = enumerate(self._states(index, tails))
        judged = {row: state for row, state in states if not ended[row] and state is not None}
        masked = self.remove(scores, judged) if judged else scores
        if masked is not scores:
            usable = are_usable(masked.amax(-1)).tolist()
            reasons = {row: self._reason(state, scores[row]) for row, state in judged.items() if not usable[row]}
            reasons = {row: reason for row, reason in reasons.items() if reason}
            dead_ends = self._reader.prompts.dead_ends
            if reasons and not dead_ends.dropping:
                row, reason = next(iter(reasons.items()))
                raise ScoresError(f"{self.owner}: row {row} must keep a token, got none: {reason}")
            if reasons:
                rows = list(reasons)
                dead_ends.add(rows, f"{self.owner}: {reasons[rows[0]]}")
                masked[rows] = scores[rows]
        return masked

    def remove(self, scores: Tensor, states: Mapping[int, State]) -> Tensor:
        """Return the scores with the tokens at -inf that may not follow; the same tensor if every token may.

        Args:
            scores: ``[rows, vocab]``.
            states: the states of the rows to judge, by number of the row.
        """
        removed, width = torch.zeros(scores.shape, dtype=torch.bool), min(self._width, scores.shape[1])
        masks = {row: self.permitted(state) for row, state in states.items()}
        for row, mask in masks.items():
            if mask is not None:
                removed[row, :width] = torch.from_numpy(~mask[:width])
                removed[row, width:] = not self.beyond
        if all(mask is None for mask in masks.values()):
            return scores
        return scores.masked_fill(removed.to(scores.device), -torch.inf)

    def _reason(self, state: State, scores: Tensor) -> str:
        """Return why a row has no token, and the way out; empty for a row that every token may follow."""
        mask = self.permitted(state)
        if mask is None:
            return ""
        if not mask[: len(scores)].any() and not (self.beyond and self._width < len(scores)):
            return f"its rule forbids every token of the vocabulary here; {self.dead_end}"
        if bool(are_usable(scores.amax(-1))):
            return f"the tokens that it allows were removed by an earlier step; put {self.owner} first in the chain"
        return "an earlier step removed every token; loosen that step"
