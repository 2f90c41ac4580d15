"""Selectors: they choose among the sequences of each prompt, after a search or after independent samples."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from logitkit.errors import ScoresError
from logitkit.params import whole

SequenceCount = Annotated[
    int | None, whole("sequences of each prompt to choose from; None: all that the search finds, 8 without one", ge=1)
]
SAMPLES = 8  # sequences of each prompt that a selector without a search and without a number draws


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidates:
    """The sequences of one prompt, of which a selector orders the numbers.

    Attributes:
        prompt: the prompt as text; empty where it has none.
        texts: the new text of each sequence, without special tokens.
        tokens: the new tokens of each sequence, without padding.
        logp: log-probability of the new tokens under the chain, nats, float64 ``[k]``.
        weights: normalised weights, probabilities that sum to 1, float64 ``[k]``.
        certainty: mean self-certainty of the new tokens, nats, ``[k]``; None: not measured.
        sampled: whether the sequences are samples; if not, they are distinct, and their weights are probabilities.

    >>> import torch
    >>> equal = {"logp": torch.zeros(2), "weights": torch.ones(2) / 2}
    >>> len(Candidates(prompt="a", texts=["b", "c"], tokens=[[1], [2]], **equal))
    2
    """

    prompt: str
    texts: list[str]
    tokens: list[list[int]]
    logp: Tensor
    weights: Tensor
    certainty: Tensor | None = None
    sampled: bool = True

    def __len__(self) -> int:
        return len(self.texts)


class Selector:
    """Orders the sequences of a prompt, best first; subclasses write `scores`.

    Args:
        n: sequences of each prompt to choose from; None: all that the search of the chain finds, and 8 without one.

    Attributes:
        name: of the selector, in errors and in the trace.
        needs_certainty: whether `Candidates.certainty` is read.

    >>> import torch
    >>> class Shortest(Selector):
    ...     def scores(self, candidates):
    ...         return [-len(text) for text in candidates.texts]
    >>> equal = {"logp": torch.zeros(2), "weights": torch.ones(2) / 2}
    >>> Shortest()(Candidates(prompt="", texts=["long", "a"], tokens=[[1, 2], [3]], **equal))
    [1, 0]
    """

    name: ClassVar[str] = "selector"
    needs_certainty: bool = False

    def __init__(self, *, n: SequenceCount = None) -> None:
        self.n = n

    def scores(self, candidates: Candidates) -> Any:
        """Return one number for each sequence, not NaN, the greater the better, ``[k]``."""
        raise NotImplementedError

    def __call__(self, candidates: Candidates) -> list[int]:
        """Return the numbers of the sequences, best first; of equally good ones the first comes first.

        Sequences of weight 0, which the target of a search forbids, come last whatever their scores.

        Args:
            candidates: the sequences of one prompt.

        Raises:
            ScoresError: a score that is no number, or another number of scores than of sequences.
        """
        given = self.scores(candidates)
        scores: list[float] = []
        with suppress(TypeError, ValueError, RuntimeError):  # what is no list of numbers
            scores = [float(score) for score in given]
        if len(scores) != len(candidates) or any(math.isnan(score) for score in scores):
            raise ScoresError(
                f"{self.name}: scores must be {len(candidates)} numbers, one for each sequence, got {given!r:.80}; "
                "correct what scores the sequences"
            )
        forbidden = (candidates.weights == 0).tolist()
        return sorted(range(len(candidates)), key=lambda number: (forbidden[number], -scores[number]))
