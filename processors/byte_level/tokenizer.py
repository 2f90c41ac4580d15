"""Bytes as token ids: every byte is its own id, and 256 is the end of a text and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from logitkit.processors.engine.prompts import left_padded
from logitkit.processors.tokens.byte_trie import END
from logitkit.processors.tokens.token_bytes import byte_alphabet

SIZE = 257  # bytes and the end


def byte_tokenizer() -> Any:
    """A tokenizer of single bytes whose ids are the bytes, with ``</s>`` at 256 as begin, end and padding.

    A text that contains ``</s>`` is read as these four bytes. Bytes that are no UTF-8 decode to U+FFFD; `texts_of`
    gives them as they are.
    """
    vocabulary = dict(byte_alphabet())
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
    )


def rows_of(texts: Sequence[bytes]) -> dict[str, Tensor]:
    """Texts of any bytes as inputs of ``generate``, ``[texts, longest]``; an empty text is one 256."""
    ids, mask = left_padded([list(text) or [END] for text in texts], pad=END)
    return {"input_ids": ids, "attention_mask": mask}


def texts_of(ids: Tensor, mask: Tensor | None = None, *, ends: Sequence[int] | None = None) -> list[list[bytes | None]]:
    """The texts that rows spell: the bytes that the mask counts, from the first of them to the first 256 after it.

    Args:
        ids: ``[rows, length]``, 0 to 256.
        mask: 1 where an id counts, ``[rows, length]``; None: everywhere.
        ends: numbers of leading ids to take, 1 to length; None: all.

    Returns:
        For each row the text of that many ids, for each of ``ends``; None where it has ended: it holds a 256.
    """
    ends = [ids.shape[1]] if ends is None else ends
    counted = torch.ones_like(ids) if mask is None else mask
    return [
        _texts_of_row(row, keep, ends)
        for row, keep in zip(ids.cpu().numpy(), counted.bool().cpu().numpy(), strict=True)
    ]


def _texts_of_row(row: Any, keep: Any, ends: Sequence[int]) -> list[bytes | None]:
    letters = row[keep]
    is_byte = letters < END
    begin = int(is_byte.argmax()) if is_byte.any() else len(letters)
    stops = np.flatnonzero(~is_byte[begin:])
    stop = begin + int(stops[0]) if len(stops) else len(letters)
    text = letters[begin:stop].astype(np.uint8).tobytes()
    counts = keep.cumsum()[[end - 1 for end in ends]] if len(keep) else [0] * len(ends)
    return [None if count > stop else text[: max(0, int(count) - begin)] for count in counts]
