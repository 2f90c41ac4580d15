"""Greedy answers of many strategies to the same prompts, with one forward of each model for each distinct prefix.

Strategies over the same two models write mostly the same tokens. All answers grow token by token together: the distinct
prefixes of a step are one batch, which each model reads once, and every strategy is a processor that receives the
logits of its own rows. The answers are those of `generate` with the chain of the strategy, up to the rounding of
batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from logitkit.processors.cascade import ModelPair
from logitkit.processors.engine import Prompts, Trace, read_prompts
from logitkit.processors.transformers_api import with_cache

Strategy = Callable[[Tensor, Tensor], Tensor]  # (ids of the rows, logits of the small model) -> scores


@dataclass(eq=False)
class RowTrace(Trace):
    """A trace that keeps the values of each row of the last step instead of their means.

    Attributes:
        values: the values by quantity, each ``[rows]``.
    """

    values: dict[str, Tensor] = field(default_factory=dict)

    def averages(self, processor: str, values: Mapping[str, Tensor], *, interventions: Sequence[str] = ()) -> None:
        """Keep the values of a step."""
        self.values.update(values)


@dataclass(eq=False)
class Answer:
    """An answer of one strategy to one prompt.

    Attributes:
        ids: its tokens, the end token included.
        values: for each quantity of the strategy's trace, the value at each token.
    """

    ids: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)


@dataclass(eq=False)
class Level:
    """The outputs of both models after the distinct prefixes of a step.

    Attributes:
        small, large: logits, fp32 ``[prefixes, vocab]``.
        hidden: last hidden states of the small model, ``[prefixes, hidden size]``.
    """

    small: Tensor
    large: Tensor
    hidden: Tensor

    def of(self, index: Tensor) -> Level:
        """Return the outputs after these prefixes."""
        return Level(self.small[index], self.large[index], self.hidden[index])


class AnswerTree:
    """Writes answers; strategies read the large model and the hidden states of the small one here.

    Args:
        pair: the models.

    Attributes:
        prompts: the prompts that are being answered.
        rows: the outputs for the rows of the strategy that is being asked.
    """

    def __init__(self, pair: ModelPair) -> None:
        self.pair = pair
        self.prompts: Prompts
        self.rows: Level

    def large(self, ids: Tensor) -> Tensor:
        """Return the logits of the large model after the rows of the strategy, ``[rows, vocab]``."""
        return self.rows.large

    @torch.no_grad()
    def write(
        self, prompts: Sequence[str], strategies: Mapping[str, Strategy], *, tokens: int, ends: Collection[int]
    ) -> dict[str, list[Answer]]:
        """Return the answers of each strategy, in the order of the prompts.

        Args:
            prompts: distinct texts.
            strategies: processors; one with an attribute ``trace``, a `RowTrace`, has its values kept.
            tokens: largest number of tokens of an answer.
            ends: ids of the tokens that end an answer.
        """
        self.prompts = read_prompts(self.pair.tokenizer, self.pair.large, list(prompts))
        count, reader = len(prompts), _Reader(self.pair, self.prompts.mask)
        rows = self.prompts.ids.repeat(len(strategies), 1)  # strategy by strategy
        prefix = torch.arange(len(rows)) % count  # number of the prefix of each row at the last step
        live = torch.ones(len(rows), dtype=torch.bool)
        answers = {name: [Answer() for _ in prompts] for name in strategies}
        for step in range(tokens):
            index = live.nonzero()[:, 0]
            if not len(index):
                break
            nodes, inverse = rows[index].unique(dim=0, return_inverse=True)
            example = torch.empty(len(nodes), dtype=torch.long)
            example[inverse] = index  # any row of each prefix
            level = reader(nodes, example % count, prefix[example] if step else None)
            prefix[index] = inverse
            chosen = torch.zeros(len(rows), dtype=torch.long)
            for number, (name, strategy) in enumerate(strategies.items()):
                own = index[index // count == number]
                if len(own):
                    self.rows = level.of(prefix[own])
                    chosen[own] = strategy(rows[own], self.rows.small).argmax(-1)
                    _keep(answers[name], strategy, own % count, chosen[own])
            rows = torch.cat([rows, chosen[:, None]], dim=1)
            live &= ~torch.isin(chosen, torch.tensor(list(ends)))
        return answers


def _keep(answers: Sequence[Answer], strategy: Strategy, places: Tensor, chosen: Tensor) -> None:
    """Append a token, and the values of the trace, to the answers at these places."""
    values = getattr(getattr(strategy, "trace", None), "values", {})
    for row, (place, token) in enumerate(zip(places.tolist(), chosen.tolist(), strict=True)):
        answers[place].ids.append(token)
        for name, column in values.items():
            answers[place].values.setdefault(name, []).append(round(float(column[row]), 4))


class _Reader:
    """Reads the prefixes of one step after another with both models.

    Args:
        pair: the models.
        mask: mask of the prompts, ``[prompts, width]``.
    """

    def __init__(self, pair: ModelPair, mask: Tensor) -> None:
        self.pair, self.mask = pair, mask
        self.caches = [DynamicCache(), DynamicCache()]

    def __call__(self, prefixes: Tensor, prompts: Tensor, parents: Tensor | None) -> Level:
        """Return the outputs after the prefixes.

        Args:
            prefixes: ids, ``[prefixes, length]``.
            prompts: number of the prompt of each prefix.
            parents: number of each prefix without its last token among those of the last step; None at the first step.
        """
        mask = torch.nn.functional.pad(self.mask[prompts], (0, prefixes.shape[1] - self.mask.shape[1]), value=1)
        inputs: dict[str, Any] = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
        inputs["input_ids"] = prefixes
        if parents is not None:
            inputs |= {name: inputs[name][:, -1:] for name in ("input_ids", "position_ids")}
            for cache in self.caches:
                cache.batch_select_indices(parents)
        small, large = self.pair.small, self.pair.large
        hidden = small.base_model(**inputs, **with_cache(self.caches[0])).last_hidden_state[:, -1]
        logits = large(**inputs, **with_cache(self.caches[1]), logits_to_keep=1).logits[:, -1]
        return Level(small.get_output_embeddings()(hidden).float(), logits.float(), hidden)
