"""Bytes as token ids: each byte is its own id, and id 256 is the end of a text and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ParameterError
from logitkit.params import is_valid_unicode
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.tokens.byte_trie import END
from logitkit.processors.tokens.token_bytes import byte_alphabet

SIZE = 257  # the bytes and the end


class ByteTokenizer(PreTrainedTokenizerFast):
    """The class of `byte_tokenizer`: a text with a lone surrogate, which has no bytes, is an error in our words."""

    def _encode_plus(self, text: Any, text_pair: Any = None, *args: Any, **settings: Any) -> Any:
        for part in (text, text_pair):
            if not is_valid_unicode(part):
                raise ParameterError(
                    "byte_tokenizer",
                    "text",
                    "text without lone surrogates, which UTF-8 cannot write",
                    part,
                    "write each character as one code point, or pass any bytes to rows_of",
                )
        return super()._encode_plus(text, text_pair, *args, **settings)


# transformers saves this name, and loads the class that has it.
ByteTokenizer.__name__ = PreTrainedTokenizerFast.__name__


def byte_tokenizer() -> Any:
    """Return a tokenizer of transformers whose token ids are the bytes of a text in UTF-8.

    Id 256, written ``</s>``, is the begin, end and padding token. The characters ``</s>`` in a text are encoded as
    their four bytes, not as id 256. Bytes that are not UTF-8 decode to U+FFFD; `texts_of` returns them unchanged.

    >>> byte_tokenizer()("né")["input_ids"]
    [110, 195, 169]
    """
    vocabulary = dict(byte_alphabet())
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return ByteTokenizer(  # type: ignore[no-untyped-call]
        tokenizer_object=inner,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
    )


def rows_of(texts: Sequence[bytes]) -> dict[str, Tensor]:
    """Return texts of any bytes as inputs of ``generate``.

    Args:
        texts: any bytes; an empty text becomes one id 256.

    Returns:
        ``input_ids`` and ``attention_mask``, left-padded with 256, ``[texts, longest]``.

    Raises:
        ParameterError: a text is no bytes.

    >>> rows_of([b"a", b"abc"])["input_ids"].tolist()
    [[256, 256, 97], [97, 98, 99]]
    """
    check_bytes("rows_of", texts)
    ids, mask = left_padded([list(text) or [END] for text in texts], pad=END)
    return {"input_ids": ids, "attention_mask": mask}


def check_bytes(owner: str, texts: Sequence[bytes]) -> None:
    """Raise unless all texts are bytes.

    Args:
        owner: the class or function that has the texts, for the error.
        texts: the texts.

    Raises:
        ParameterError: a text is no bytes, as where ``texts`` is one text and not several.

    >>> check_bytes("ByteTree", ["text"])
    Traceback (most recent call last):
    logitkit.errors.ParameterError: ByteTree: text must be bytes, got 'text'; pass text.encode()
    """
    for text in texts:
        if not isinstance(text, bytes):
            way_out = "pass text.encode()" if isinstance(text, str) else "pass a list of bytes for several texts"
            raise ParameterError(owner, "text", "bytes", text, way_out)


def texts_of(ids: Tensor, mask: Tensor | None = None, *, ends: Sequence[int] | None = None) -> list[list[bytes | None]]:
    """Return the texts of rows: the bytes that the mask counts, up to the first id 256 after a byte.

    Args:
        ids: ``[rows, length]``, 0 to 256.
        mask: 1 where an id counts, ``[rows, length]``; None: everywhere.
        ends: numbers of leading ids, 1 to length, whose texts are returned; None: all ids.

    Returns:
        For each row a list with one text for each of ``ends``; None in place of a text that has ended.

    >>> texts_of(torch.tensor([[256, 97, 98, 256]]), ends=[2, 3, 4])
    [[b'a', b'ab', None]]
    """
    ends = [ids.shape[1]] if ends is None else ends
    counted = torch.ones_like(ids) if mask is None else mask
    return [
        _texts_of_row(row, keep, ends)
        for row, keep in zip(ids.cpu().numpy(), counted.bool().cpu().numpy(), strict=True)
    ]


def _texts_of_row(row: NDArray[np.int64], keep: NDArray[np.bool_], ends: Sequence[int]) -> list[bytes | None]:
    """Return the texts of one row after the given numbers of leading ids."""
    counted = row[keep]
    is_byte = counted < END
    begin = int(is_byte.argmax()) if is_byte.any() else len(counted)
    stops = np.flatnonzero(~is_byte[begin:])
    stop = begin + int(stops[0]) if len(stops) else len(counted)
    text = counted[begin:stop].astype(np.uint8).tobytes()
    counts = keep.cumsum()[[end - 1 for end in ends]] if len(keep) else [0] * len(ends)
    return [None if count > stop else text[: max(0, int(count) - begin)] for count in counts]
