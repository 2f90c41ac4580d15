"""The move of one token: the distributions before and after the chain, and the token chosen from the second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.processors.engine.trace import Step, Trace, most_probable

TokenProbabilities = tuple[tuple[int, float], ...]  # (token id, probability), most probable first
GENERATING_MODEL = "generating model"


@dataclass(frozen=True, eq=False, kw_only=True)
class Move:
    """One token, and how the whole chain moved the distribution from which the token was chosen.

    Attributes:
        token: id of the chosen token.
        js_bits: Jensen-Shannon divergence between the distributions before and after the chain, in bits, 0 to 1.
        before, after: the most probable tokens, ``(id, probability)``, most probable first.
        probability: probability of the chosen token before and after the chain.
        rank: rank of the chosen token before and after the chain; 1 is the most probable token.
        entropy: entropy of the distribution before and after the chain, in bits.
        surprisal: surprisal of the chosen token before and after the chain, in bits: ``-log2`` of its probability;
            infinite for a token that is impossible there.
        forwards: number of forward passes for this token, by stream.
        steps: what each processor did, in the order of the chain, with its notes (gates, weights).

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=3)
    >>> move = inspection.moves[0]
    >>> move.rank, move.probability[1] > move.probability[0], move.changed
    ((1, 1), True, False)
    >>> move.entropy[1] < move.entropy[0], move.surprisal[1] < move.surprisal[0]
    (True, True)
    """

    token: int
    js_bits: float
    before: TokenProbabilities
    after: TokenProbabilities
    probability: tuple[float, float]
    rank: tuple[int, int]
    entropy: tuple[float, float]
    surprisal: tuple[float, float]
    forwards: Mapping[str, int]
    steps: tuple[Step, ...]

    @property
    def changed(self) -> bool:
        """Whether the chain made another token the most probable one."""
        return self.before[0][0] != self.after[0][0]


class MoveRecorder:
    """An observer of a chain that records the move of every token of one row.

    ``generate`` chooses a token after the chain has run, so the recorder learns the token of a step at the next step,
    and the last token from `finish`.

    Args:
        trace: trace of the call, with ``recording`` on.
        top: how many of the most probable tokens a move keeps.
    """

    def __init__(self, trace: Trace, top: int) -> None:
        self.trace, self.top = trace, top
        self.moves: list[Move] = []
        self._begin = 0  # length of the row before the first new token
        self._open: tuple[Move, Tensor, Tensor] | None = None  # the move without its token; log-probabilities [vocab]
        self._steps_seen, self._forwards_seen = 0, dict(trace.forwards)

    def observe(self, input_ids: Tensor, before: Tensor, after: Tensor) -> None:
        """Record one step.

        Args:
            input_ids: the row so far, ``[1, length]``.
            before, after: scores before and after the chain, ``[1, vocab]``.
        """
        if self._open is None:
            self._begin = input_ids.shape[1]
        else:
            self._close(int(input_ids[0, -1]))
        forwards, steps = dict(self.trace.forwards), tuple(self.trace.steps[self._steps_seen :])
        extra = {name: count - self._forwards_seen.get(name, 0) for name, count in forwards.items()}
        self._steps_seen, self._forwards_seen = len(self.trace.steps), forwards
        logs = _log_probabilities(before), _log_probabilities(after)
        move = Move(
            token=-1,
            js_bits=0.0 if torch.equal(before, after) else float(js_bits(before, after)[0]),
            before=most_probable(before, self.top)[0],
            after=most_probable(after, self.top)[0],
            probability=(0.0, 0.0),
            rank=(0, 0),
            entropy=(_entropy_bits(logs[0]), _entropy_bits(logs[1])),
            surprisal=(0.0, 0.0),
            forwards={GENERATING_MODEL: 1} | {name: count for name, count in extra.items() if count},
            steps=steps,
        )
        self._open = move, *logs

    def finish(self, row: list[int]) -> list[Move]:
        """Return the moves of all tokens.

        Args:
            row: token ids of the prompt and the whole continuation.
        """
        if self._open is not None and len(row) > self._begin + len(self.moves):
            self._close(row[self._begin + len(self.moves)])
        return self.moves

    def _close(self, token: int) -> None:
        """Complete the last move with the chosen token, its probabilities and its ranks."""
        assert self._open is not None
        move, before, after = self._open
        logs = float(before[token]), float(after[token])
        self.moves.append(
            replace(
                move,
                token=token,
                probability=(math.exp(logs[0]), math.exp(logs[1])),
                rank=(1 + int((before > before[token]).sum()), 1 + int((after > after[token]).sum())),
                surprisal=(_bits(-logs[0]), _bits(-logs[1])),
            )
        )


def _log_probabilities(scores: Tensor) -> Tensor:
    """Return the log-probabilities of the first row, ``[vocab]``, in fp32."""
    return with_infinite_masks(scores[0]).float().log_softmax(-1)


def _entropy_bits(logs: Tensor) -> float:
    """Return the entropy of log-probabilities in bits."""
    return _bits(float(-torch.where(logs > -torch.inf, logs.exp() * logs, 0.0).sum()))


def _bits(nats: float) -> float:
    """Return a quantity that is at least 0 in bits; rounding may have made it slightly negative."""
    return max(0.0, nats / math.log(2))
