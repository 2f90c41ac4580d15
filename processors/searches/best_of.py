"""The best of several sequences by likelihood, certainty, frequency, or a judge of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.searches.answers import normalised_answer
from logitkit.processors.searches.mbr import weights_of_answers
from logitkit.processors.searches.reward import RewardModel
from logitkit.processors.searches.selector import Candidates, Selector, SequenceCount

Judge = Callable[[str, str], Any]
MEASURES = ("likelihood", "mean_likelihood", "self_certainty", "self_consistency")


class BestOf(Selector):
    """Order sequences by one number each; the first of equally good ones wins.

    ``likelihood`` is the log-probability of the new tokens under the chain, and ``mean_likelihood`` the same for each
    token: short texts have an advantage in the first, and none in the second. ``self_certainty`` is the mean distance
    of the model's next-token distributions from the uniform one, before the steps of the chain (arXiv:2502.18581).
    ``self_consistency`` is the total weight of the sequences with the same answer, in one spelling (arXiv:2203.11171).
    Any other name is that of an object passed to bind: a function ``judge(prompt, text)`` that returns a number, such
    as a verifier, or a model with one score for a text, a reward model.

    Args:
        n: sequences of each prompt to choose from.
        by: a measure, or the name of a judge.
        judge: the judge; None: ``by`` is a measure.

    Example:
        >>> best = BestOf(by="mean_likelihood")
        >>> best(Candidates(prompt="", texts=["a", "bc"], tokens=[[0], [1, 2]],
        ...                 logp=torch.tensor([-2.0, -3.0]), weights=torch.tensor([0.5, 0.5])))
        [1, 0]
    """

    name: ClassVar[str] = "best_of"
    order = ("n", "by")

    @checked
    def __init__(
        self,
        *,
        n: SequenceCount = None,
        by: Annotated[
            str,
            option(
                "'likelihood', 'mean_likelihood', 'self_certainty', 'self_consistency', or the name under which bind "
                "gets a function(prompt, text) or a reward model"
            ),
        ] = "likelihood",
        judge: Annotated[Judge | None, Resource()] = None,
    ) -> None:
        super().__init__(n=n)
        if judge is None and by not in MEASURES:
            rule = f"one of {', '.join(map(repr, MEASURES))}, or the name of a judge passed to bind"
            raise ParameterError("best_of", "by", rule, by)
        self.by, self.judge, self.needs_certainty = by, judge, judge is None and by == "self_certainty"

    @classmethod
    def bind(cls, binding: Binding, *, n: SequenceCount, by: str) -> BestOf:
        """Build the selector with the judge that ``by`` names.

        Raises:
            ParameterError: ``by`` is no measure, and nothing was passed to bind under this name, or neither a function
                nor a model with one score.
            ModelError: a reward model without a tokenizer.
        """
        if by not in binding.resources:
            return cls(n=n, by=by)
        judge: Any = binding.resource(by)
        if hasattr(judge, "config") and hasattr(judge, "forward"):
            judge = RewardModel(judge, binding.tokenizer_named(by), name=by)
        elif not callable(judge):
            raise ParameterError("best_of", "by", "the name of a function(prompt, text) or a model", by)
        return cls(n=n, by=by, judge=judge)

    def scores(self, candidates: Candidates) -> Sequence[Any] | Tensor:
        """Return the number of each sequence, ``[k]``."""
        if isinstance(self.judge, RewardModel):
            return self.judge.rewards([candidates.prompt + text for text in candidates.texts])
        if self.judge is not None:
            return [self.judge(candidates.prompt, text) for text in candidates.texts]
        if self.by == "self_certainty":
            assert candidates.certainty is not None
            return candidates.certainty
        if self.by == "self_consistency":
            answers = [normalised_answer(text) for text in candidates.texts]
            return weights_of_answers(answers, candidates.weights)
        if self.by == "likelihood":
            return candidates.logp
        lengths = torch.tensor([max(1, len(tokens)) for tokens in candidates.tokens])
        return candidates.logp / lengths.to(candidates.logp)
