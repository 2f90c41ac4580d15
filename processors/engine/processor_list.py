"""The processors of a call as a list for `generate`, with a check behind whatever is added to the list.

`generate` copies the processors it receives into a list of its own, in order, and puts its warpers behind them. The
check is therefore no part of the list's stored items: iteration yields the check behind the last item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.errors import ScoresError
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.dead_ends import DeadEnds
from logitkit.processors.engine.scores import unusable_row


class FinalCheck(LogitsProcessor):
    """Refuse rows of which the processors behind a chain leave no token, from which `generate` would write token 0.

    Args:
        names: the processors behind the chain, for the error.
        dead_ends: of the call; None: every such row is refused.

    Example:
        >>> import torch
        >>> FinalCheck(["Mine"])(torch.tensor([[0]]), torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    supports_continuous_batching = False

    def __init__(self, names: Sequence[str], dead_ends: DeadEnds | None = None) -> None:
        self.names, self.dead_ends = tuple(names), dead_ends

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores themselves, ``[rows, vocab]``.

        Raises:
            ScoresError: a row without a finite maximum, unless the search that runs drops rows without a token.
        """
        if self.dead_ends is not None:
            owner = f"the processors behind the chain ({', '.join(self.names)})"
            scores = self.dead_ends.without(scores, torch.zeros_like(scores), owner)
        fault = unusable_row(scores)
        if fault:
            row, problem = fault
            raise ScoresError(
                f"logitkit: every row must keep a token with a finite score, got {problem} in row {row} from the "
                f"processors behind the chain ({', '.join(self.names)}); loosen them or the truncation before them"
            )
        return scores


class ChainInGenerate(LogitsProcessor):
    """A chain as `generate` calls it; see `Composite.in_generate`.

    Args:
        composite: the chain.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import Prompts, Trace
        >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
        ...                   adds_specials=False)
        >>> ChainInGenerate(Composite([], prompts=prompts, trace=Trace()))(prompts.ids, torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    supports_continuous_batching = False

    def __init__(self, composite: Composite) -> None:
        self.composite = composite

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after the chain, ``[rows, vocab]``."""
        return self.composite.in_generate(input_ids, scores)


class GuardedList(LogitsProcessorList):
    """A `LogitsProcessorList` that yields a `FinalCheck` behind processors that follow a chain.

    A list in which nothing follows the chain yields its items alone. The check also follows what ``append``,
    ``insert``, ``extend`` and ``+`` add. The items of a list that is built by unpacking, ``[*guarded, mine]``, are not
    checked behind ``mine``.

    Example:
        >>> import torch
        >>> from transformers import TopKLogitsWarper
        >>> from logitkit.processors.engine import Prompts, Trace
        >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
        ...                   adds_specials=False)
        >>> chain = Composite([("top_k", TopKLogitsWarper(1))], prompts=prompts, trace=Trace())
        >>> processors = GuardedList([ChainInGenerate(chain)])
        >>> [type(processor).__name__ for processor in processors]
        ['ChainInGenerate']
        >>> [type(processor).__name__ for processor in processors + [TopKLogitsWarper(1)]]
        ['ChainInGenerate', 'TopKLogitsWarper', 'FinalCheck']
    """

    def __iter__(self) -> Iterator[Any]:
        stored = list(super().__iter__())
        yield from stored
        chain, behind = _behind_a_chain(stored)
        if chain is not None and behind and not isinstance(behind[-1], FinalCheck):
            yield FinalCheck([type(processor).__name__ for processor in behind], chain.prompts.dead_ends)

    def __add__(self, other: Iterable[Any]) -> GuardedList:
        return GuardedList([*super().__iter__(), *other])

    def __radd__(self, other: Iterable[Any]) -> GuardedList:
        return GuardedList([*other, *super().__iter__()])

    def copy(self) -> GuardedList:
        """Return a guarded list of the same items."""
        return GuardedList(list(super().__iter__()))


def _behind_a_chain(processors: Sequence[Any]) -> tuple[Composite | None, Sequence[Any]]:
    """Return the first chain with steps and the processors behind it; an empty chain leaves every token."""
    for place, processor in enumerate(processors):
        chain = processor.composite if isinstance(processor, ChainInGenerate) else processor
        if isinstance(chain, Composite) and chain.parts:
            return chain, processors[place + 1 :]
    return None, ()
