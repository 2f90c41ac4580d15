"""Minimum Bayes risk: the sequence that agrees best with all sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from logitkit.errors import ParameterError, ScoresError
from logitkit.params import Resource, checked, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.searches.answers import normalised_answer
from logitkit.processors.searches.chrf import chrf
from logitkit.processors.searches.selector import Candidates, Selector, SequenceCount

Utility = Callable[[str, str], float]


@runtime_checkable
class PairwiseUtility(Protocol):
    """A utility that judges many pairs of texts at once, such as a metric of the package mbrs.

    An attribute ``HIGHER_IS_BETTER`` that is False reverses the order, as for an error rate.

    >>> class Overlap:
    ...     def pairwise_scores(self, hypotheses, references, source=None):
    ...         return torch.tensor([[float(bool({*one} & {*other})) for other in references] for one in hypotheses])
    >>> isinstance(Overlap(), PairwiseUtility), isinstance(exact_match, PairwiseUtility)
    (True, False)
    """

    def pairwise_scores(self, hypotheses: list[str], references: list[str], source: str | None = None) -> Any:
        """Return the utility of each hypothesis with each reference.

        Args:
            hypotheses: texts, each once.
            references: texts, each once.
            source: the prompt.

        Returns:
            Finite numbers, a tensor or nested lists, ``[hypotheses, references]``.
        """


def exact_match(hypothesis: str, reference: str) -> float:
    """Return 1 for texts that are equal but for case, punctuation and white space at their ends, else 0.

    >>> exact_match("42.", " 42 "), exact_match("42", "43")
    (1.0, 0.0)
    """
    return float(normalised_answer(hypothesis) == normalised_answer(reference))


UTILITIES: dict[str, Utility] = {"exact_match": exact_match, "chrf": chrf}


class MBR(Selector):
    """Choose the sequence with the greatest expected utility, the other sequences being the references.

    Among samples, the expectation is the mean over the other sequences by their weights; with equal weights, the mean
    utility to the other samples. With ``exact_match`` the most frequent answer wins (self-consistency,
    arXiv:2203.11171). Source: Eikema and Aziz, arXiv:2005.10283.

    The texts of ``beams`` are no samples. Their expectation is over all of them by their probabilities, normalised over
    the texts that were found, the text itself included. Source: Kumar and Byrne 2004, over lists of the best texts;
    Jinnai et al., arXiv:2311.05263.

    Args:
        n: sequences of each prompt to choose from.
        utility: name of the utility.
        function: the utility, ``function(hypothesis, reference)`` or a `PairwiseUtility`; None: the built-in one of
            this name.

    By hand: "a b" agrees with one other text, "c" with none; the first of two equally good ones wins.

    Example:
        >>> logp, weights = torch.zeros(3), torch.full((3,), 1 / 3)
        >>> tokens = [[0], [1], [2]]
        >>> MBR(utility="exact_match")(Candidates(prompt="", texts=["c", "a b", "A b."], tokens=tokens, logp=logp,
        ...                                       weights=weights))
        [1, 2, 0]
    """

    name: ClassVar[str] = "mbr"
    order = ("n", "utility")

    @checked
    def __init__(
        self,
        *,
        n: SequenceCount = None,
        utility: Annotated[
            str,
            option(
                "'exact_match', 'chrf', or the name under which bind gets a function(hypothesis, reference) or an "
                "object with pairwise_scores"
            ),
        ] = "chrf",
        function: Annotated[Utility | PairwiseUtility | None, Resource()] = None,
    ) -> None:
        super().__init__(n=n)
        if function is None and utility not in UTILITIES:
            known = " or ".join(map(repr, UTILITIES))
            raise ParameterError("mbr", "utility", f"{known}, or the name of a function passed to bind", utility)
        self.utility, self.function = utility, UTILITIES[utility] if function is None else function

    @classmethod
    def bind(cls, binding: Binding, *, n: SequenceCount, utility: str) -> MBR:
        """Build the selector with a function of the user where ``utility`` names one.

        Raises:
            ParameterError: nothing was passed to bind under this name, or neither a function nor an object with
                ``pairwise_scores``.
        """
        if utility in binding.resources:
            function: Any = binding.resource(utility)
            if not callable(function) and not isinstance(function, PairwiseUtility):
                rule = "the name of a function(hypothesis, reference) or of an object with pairwise_scores"
                raise ParameterError("mbr", "utility", rule, utility)
            return cls(n=n, utility=utility, function=function)
        return cls(n=n, utility=utility)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the expected utility of each sequence, ``[k]``.

        Raises:
            ScoresError: the utility is no finite number.
        """
        texts, weights = candidates.texts, candidates.weights.double()
        others = weights.expand(len(texts), -1).clone()
        if candidates.sampled:  # a sample says nothing new about itself
            others = others.fill_diagonal_(0)
        function = self.function
        if isinstance(function, PairwiseUtility):
            utilities = self._all_pairs(function, texts, candidates.prompt)
        else:
            utilities = self._each_pair(function, texts, others)
        return (utilities * others).sum(-1) / others.sum(-1).clamp_min(1e-300)

    def _each_pair(self, function: Utility, texts: Sequence[str], others: Tensor) -> Tensor:
        """Return the utility of each text with each other one, ``[k, k]``; an equal pair is asked about once.

        Args:
            function: the utility.
            texts: the texts.
            others: weights of the references of each text, ``[k, k]``; a text is its own reference where that is not 0.
        """
        utilities = torch.zeros(len(texts), len(texts), dtype=torch.float64)
        known: dict[tuple[str, str], float] = {}
        for row, hypothesis in enumerate(texts):
            for column, reference in enumerate(texts):
                if others[row, column] or row != column:
                    pair = hypothesis, reference
                    if pair not in known:
                        known[pair] = self._asked(function, *pair)
                    utilities[row, column] = known[pair]
        return utilities

    def _all_pairs(self, function: PairwiseUtility, texts: Sequence[str], prompt: str) -> Tensor:
        """Return the utility of each text with each text, ``[k, k]``; each distinct text is asked about once.

        Raises:
            ScoresError: another shape, or numbers that are not finite.
        """
        distinct = list(dict.fromkeys(texts))
        said, given = function.pairwise_scores(distinct, distinct, prompt), torch.tensor(math.nan)
        with suppress(TypeError, ValueError, RuntimeError):  # what is no matrix
            given = torch.as_tensor(said).double().cpu()
        if given.shape != (len(distinct),) * 2 or not bool(given.isfinite().all()):
            got = f"shape {[*given.shape]}" if given.shape != (len(distinct),) * 2 else "others"
            raise ScoresError(
                f"mbr: utility {self.utility} must return {len(distinct)} times {len(distinct)} finite numbers, got "
                f"{got}; correct its pairwise_scores"
            )
        place = torch.tensor([distinct.index(text) for text in texts])
        sign = 1.0 if getattr(function, "HIGHER_IS_BETTER", True) else -1.0
        return sign * given[place][:, place]

    def _asked(self, function: Utility, hypothesis: str, reference: str) -> float:
        """Return the utility of a pair of texts."""
        value, utility = function(hypothesis, reference), math.nan
        with suppress(TypeError, ValueError, RuntimeError):  # what is no number
            utility = float(value)
        if not math.isfinite(utility):
            raise ScoresError(
                f"mbr: utility {self.utility} must return a finite number, got {value!r:.40} for the texts "
                f"{hypothesis!r:.40} and {reference!r:.40}; correct the function"
            )
        return utility


def weights_of_answers(answers: Sequence[str], weights: Tensor) -> Tensor:
    """Return for each answer the total weight of the answers that are equal to it, ``[k]``.

    >>> weights_of_answers(["a", "b", "a"], torch.tensor([0.5, 0.25, 0.25])).tolist()
    [0.75, 0.25, 0.75]
    """
    equal = torch.tensor([[one == other for other in answers] for one in answers], dtype=weights.dtype)
    return equal @ weights
