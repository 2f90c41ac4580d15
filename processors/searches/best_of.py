"""The best of several sequences by their likelihood or by the certainty of the model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from logitkit.params import checked, option
from logitkit.processors.searches.selector import Candidates, Selector, SequenceCount

By = Literal["likelihood", "mean_likelihood", "self_certainty"]


class BestOf(Selector):
    """Order sequences by one number each; the first of equally good ones wins.

    ``likelihood`` is the log-probability of the new tokens under the chain, ``mean_likelihood`` the same for each token
    (short texts have an advantage in the first, and none in the second), and ``self_certainty`` the mean distance of
    the model's next-token distributions from the uniform one (arXiv:2502.18581), before the steps of the chain.

    Example:
        >>> import torch
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
        by: Annotated[By, option("what is largest in the best sequence")] = "likelihood",
    ) -> None:
        super().__init__(n=n)
        self.by, self.needs_certainty = by, by == "self_certainty"

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the number of each sequence, nats, ``[k]``."""
        if self.by == "self_certainty":
            assert candidates.certainty is not None
            return candidates.certainty
        if self.by == "likelihood":
            return candidates.logp
        lengths = candidates.logp.new_tensor([max(1, len(tokens)) for tokens in candidates.tokens])
        return candidates.logp / lengths
