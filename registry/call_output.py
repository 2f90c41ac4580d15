"""The output of a `generate` as ids and as texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from logitkit.errors import ModeError
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.tokens.vocabulary import Vocabulary


def ids_of(output: Any) -> Tensor:
    """Return the token ids of an output of ``model.generate``, ``[rows, length]``, prompts included.

    Raises:
        ModeError: another shape, as continuous batching returns it.

    >>> import torch
    >>> ids_of(torch.tensor([[1, 2]])).shape
    torch.Size([1, 2])
    """
    ids = output if isinstance(output, Tensor) else getattr(output, "sequences", None)
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        got = list(ids.shape) if isinstance(ids, Tensor) else type(output).__name__
        raise ModeError(
            f"logitkit: an output must hold ids [rows, length], got {got}; continuous batching "
            "(cache_implementation='paged') returns other shapes and drops processors, leave it out"
        )
    return ids


def texts_after_removed_bytes(tokenizer: Any, prompts: Prompts, rows: Sequence[Sequence[int]]) -> list[str]:
    """Return continuations without their first bytes, which were removed from the end of the prompts.

    Args:
        tokenizer: of the generating model.
        prompts: the prompts of the call.
        rows: the new tokens of each row, those of one prompt next to each other.
    """
    vocabulary = Vocabulary.of(tokenizer)
    rows_per_prompt = len(rows) // len(prompts)
    texts = []
    for number, row in enumerate(rows):
        written = vocabulary.join(token for token in row if token < len(vocabulary))
        removed = len(prompts.removed[number // rows_per_prompt])
        texts.append(written[removed:].decode(errors="replace"))
    return texts


def refuse_output_without_chain(steps: int, calls: int, search_ran: bool | None) -> None:
    """Refuse tokens that were generated without a call of the chain, or without its search.

    Args:
        steps: number of steps of the chain.
        calls: number of calls of the chain.
        search_ran: whether the search of the chain has run; None: the chain has none.

    Raises:
        ModeError: as said.
    """
    if search_ran is False:
        raise ModeError(
            "logitkit: the search of the chain must run, but generate never called it; pass "
            "custom_generate=call.search, or use call.generate(...)"
        )
    if steps and not calls:
        raise ModeError(
            "logitkit: the chain must be called at every step, but generate never called it (continuous batching "
            "drops processors; so does leaving out logits_processor=call.processors); use call.generate(...)"
        )
