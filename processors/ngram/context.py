"""Style injection from the prompt itself: `NgramStyle` with a table that is counted in the prompts of the call.

The formulas are in `logitkit.processors.ngram.formulas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.padding import BoundPrompts
from logitkit.processors.ngram import counting
from logitkit.processors.ngram.evidence import note_without_ngrams
from logitkit.processors.ngram.parameters import (
    CapBits,
    Groups,
    Once,
    OptionalTrace,
    OrderWeights,
    Plausible,
    PseudoCount,
    TargetJS,
    Weight,
)
from logitkit.processors.ngram.style import NgramStyle
from logitkit.processors.ngram.table import MOST_ORDERS, NgramTable
from logitkit.processors.ngram.vocabulary import TableVocabulary

ContextRule = Literal["lift", "mixture"]


class NgramContext(LogitsProcessor):
    """Raise the tokens that repeat the wording of the prompt, for copying and citing from retrieved text.

    Each row has the n-grams of its own prompt as its style. The parameters are those of `NgramStyle`.

    Args:
        table: a table with one group for each prompt, as `table_of_groups` makes it.
        weight: -1 to 1; at 0 the scores are returned unchanged; below 0 the wording is avoided.
        rule: ``lift`` or ``mixture``.
        order_weights: one for each order, >= 0; None: in the proportion 1 : 3 : 6 : 10 : 15, with sum 1.
        k: pseudo-count of ``lift``, above 0.
        cap_bits: largest move of a score, in bits; None: unlimited.
        plausible: 0 to 1; only tokens with at least this share of the largest probability move.
        once: whether n-grams of the longest order give no evidence once the continuation contains them.
        target_js: Jensen-Shannon divergence in bits by which each row moves; None: the full weight.
        groups: maps rows of tokens to the prompt that each row continues, ``[rows]``.
        prompts: the bound prompts, whose left padding is not part of any context.
        trace: receives the weight of each row where ``target_js`` is set.

    Raises:
        ParameterError: a parameter outside its range, or parameters that do not fit each other.

    Example:
        >>> import torch
        >>> table = table_of_groups([[1, 2, 1], [1, 3, 1]], orders=2, vocabulary=TableVocabulary(4, [], None))
        >>> context = NgramContext(table=table, weight=1.0, groups=lambda rows: torch.arange(len(rows)))
        >>> context(torch.tensor([[1], [1]]), torch.zeros(2, 4)).argmax(-1)  # each row repeats its own prompt
        tensor([2, 3])
    """

    @checked
    def __init__(  # Over 40 lines: every parameter of the chain is a parameter of the constructor
        self,
        *,
        table: Annotated[NgramTable, Resource()],
        weight: Weight = 0.1,
        rule: Annotated[ContextRule, option("lift: n-grams of the prompt gain; mixture: mix probabilities")] = "lift",
        order_weights: OrderWeights = None,
        k: PseudoCount = 1e-3,
        cap_bits: CapBits = None,
        plausible: Plausible = 0.0,
        once: Once = False,
        target_js: TargetJS = None,
        groups: Groups = None,
        prompts: BoundPrompts = None,
        trace: OptionalTrace = None,
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
    def bind(  # Over 40 lines: every parameter of the chain is a parameter of bind
        cls,
        binding: Binding,
        *,
        weight: float,
        rule: ContextRule,
        order_weights: list[float] | None,
        k: float,
        cap_bits: float | None,
        plausible: float,
        once: bool,
        target_js: float | None,
        context: Annotated[
            str | list[str] | None,
            option("the texts to repeat, one for all prompts or one for each; None: the prompts themselves"),
        ] = None,
        orders: Annotated[int, whole("longest n-gram", ge=1, le=MOST_ORDERS)] = 3,
    ) -> NgramContext:
        """Count the n-grams of each prompt, or of the text given for the prompt.

        Raises:
            ParameterError: the number of texts is neither one nor the number of prompts, or a text has no tokens.
        """
        if context is None:
            documents = binding.own_prompts()
        else:
            texts = list(binding.one_text_per_prompt("ngram_context", "context", context))
            documents = binding.tokenizer(texts, add_special_tokens=False)["input_ids"]
        table = table_of_groups(documents, orders=orders, vocabulary=TableVocabulary.of(binding.tokenizer))
        if rule != "mixture":
            note_without_ngrams(binding, "ngram_context", table, order_weights, "give longer texts as context")
        return cls(
            table=table,
            weight=weight,
            rule=rule,
            order_weights=order_weights,
            k=k,
            cap_bits=cap_bits,
            plausible=plausible,
            once=once,
            target_js=target_js,
            groups=binding.prompts.rows,
            prompts=binding.prompts,
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the wording of the prompt raised, ``[rows, vocab]``."""
        return self.style(input_ids, scores)


def table_of_groups(documents: Sequence[Sequence[int]], *, orders: int, vocabulary: TableVocabulary) -> NgramTable:
    """Count documents separately, each in a group of its own of one table.

    Args:
        documents: token ids of each document.
        orders: longest n-gram, 1 to 5.
        vocabulary: the ids that n-grams may contain.

    Raises:
        ParameterError: a document in which every token is special.

    Example:
        >>> table_of_groups([[1, 2], [3]], orders=1, vocabulary=TableVocabulary(4, [], None)).groups
        2
    """
    excluded = np.asarray(sorted(vocabulary.special), dtype=np.int64)
    streams = [counting.join_documents([document], base=vocabulary.size, excluded=excluded) for document in documents]
    for index, ids in enumerate(streams):
        if not (ids >= 0).any():
            raise ParameterError("ngram_context", f"the text of prompt {index}", "at least one token", "none")
    counted = [counting.count(ids, orders=orders, base=vocabulary.size) for ids in streams]
    return NgramTable(counting.merge_as_groups(counted, base=vocabulary.size), **vocabulary._asdict())
