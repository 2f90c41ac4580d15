"""Favour the wording of the prompt: n-gram style injection (`NgramStyle`) whose corpus is the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.padding import BoundPrompts
from logitkit.processors.ngram import counting
from logitkit.processors.ngram.style import (
    CapBits,
    Groups,
    NgramStyle,
    Noted,
    Once,
    Plausible,
    PseudoCount,
    TargetJS,
    Weight,
    Weights,
)
from logitkit.processors.ngram.table import MOST_ORDERS, NgramTable, of_tokenizer


class NgramContext(LogitsProcessor):
    """Favour the wording of the prompt itself: its own n-grams as the style, each prompt's for its own rows.

    The copy and citation variant of `NgramStyle`, for prompts with retrieved text.

    Args:
        table: one group for each prompt.
        groups: which prompt each row continues.
    """

    @checked
    def __init__(
        self,
        *,
        table: Annotated[NgramTable, Resource()],
        weight: Weight = 0.1,
        rule: Annotated[
            Literal["lift", "mixture"], option("lift: seen tokens gain; mixture: of probabilities")
        ] = "lift",
        order_weights: Weights = None,
        k: PseudoCount = 1e-3,
        cap_bits: CapBits = None,
        plausible: Plausible = 0.0,
        once: Once = False,
        target_js: TargetJS = None,
        groups: Groups = None,
        prompts: BoundPrompts = None,
        trace: Noted = None,
    ) -> None:
        self.style = NgramStyle(
            table=table,
            weight=weight,
            rule=rule,
            order_weights=order_weights,
            k=k,
            cap_bits=cap_bits,
            plausible=plausible,
            once=once,
            target_js=target_js,
            groups=groups,
            prompts=prompts,
            trace=trace,
        )

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        context: Annotated[
            str | list[str] | None,
            option("the texts to favour, one for all or one a prompt; None: the prompts themselves"),
        ] = None,
        orders: Annotated[int, whole("longest n-gram", ge=1, le=MOST_ORDERS)] = 3,
        **strength: Any,
    ) -> NgramContext:
        """Count the n-grams of each prompt, or of the text given for it."""
        if context is None:
            own = binding.own_prompts()
        else:
            texts = list(binding.one_text_per_prompt("ngram_context", "context", context))
            own = binding.tokenizer(texts, add_special_tokens=False)["input_ids"]
        table = table_of_each(own, orders=orders, **of_tokenizer(binding.tokenizer))
        return cls(table=table, groups=binding.prompts.rows, prompts=binding.prompts, trace=binding.trace, **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the prompt's wording favoured, ``[rows, vocab]``."""
        return self.style(input_ids, scores)


def table_of_each(
    documents: Sequence[Sequence[int]],
    *,
    orders: int,
    size: int,
    special: Sequence[int],
    fingerprint: str | None = None,
) -> NgramTable:
    """Count documents side by side, each in its own group of one table.

    Raises:
        ParameterError: a document without a token that is not special.
    """
    banned = np.asarray(sorted(special), dtype=np.int64)
    streams = [counting.stream([document], base=size, banned=banned) for document in documents]
    for number, ids in enumerate(streams):
        if not (ids >= 0).any():
            raise ParameterError("ngram_context", f"the text of prompt {number}", "at least one token", "none")
    levels = counting.side_by_side([counting.count(ids, orders=orders, base=size) for ids in streams], base=size)
    return NgramTable(levels, size=size, special=special, fingerprint=fingerprint)
