"""Windows of a text, cut where the tokens of several tokenizers end together, and the chunks between such places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from logitkit.diagnostics.token_boundaries import token_ends
from logitkit.errors import ModelError, ParameterError

TRIES = 64  # places near the end of a window at which a cut is tried


class Encoding(NamedTuple):
    """The tokens of the text of a window.

    Attributes:
        ids: the tokens, without special tokens around them.
        ends: the byte of the whole text behind each token.

    Example:
        >>> Encoding([5, 6], [3, 4]).ends[-1]
        4
    """

    ids: list[int]
    ends: list[int]


class Window(NamedTuple):
    """A part of a text that models read at once.

    Attributes:
        begin: first byte that is read.
        start: first byte that is scored; what is read before it is context.
        end: the byte behind the last one that is scored. What follows in the window is read for the encodings alone.
        chunks: places from ``start`` to ``end`` at which tokens of all tokenizers end, in order, both included.
        encodings: tokens of the window by tokenizer.

    Example:
        >>> Window(0, 0, 4, [0, 3, 4], {}).lengths
        [3, 1]
    """

    begin: int
    start: int
    end: int
    chunks: list[int]
    encodings: Mapping[str, Encoding]

    @property
    def lengths(self) -> list[int]:
        """Bytes of each chunk."""
        return [end - begin for begin, end in zip(self.chunks, self.chunks[1:], strict=False)]


def text_windows(text: str, tokenizers: Mapping[str, Any], *, size: int, context: int) -> list[Window]:
    """Return windows that cover a text, each byte scored once.

    The first window has no context. A later one begins with the last bytes that were scored before it. Its own tokens
    are those of its text alone, and it starts where tokens of all tokenizers end in both windows.

    Args:
        text: the text.
        tokenizers: fast tokenizers by name. Special tokens that are spelled in the text are read as text.
        size: most bytes that are read at once.
        context: least bytes of context of a later window.

    Raises:
        ParameterError: the context is not smaller than the window.
        ModelError: a tokenizer does not keep the text; the tokens of a window end nowhere together.

    Example:
        >>> from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
        >>> both = {"bytes": tiny_tokenizer(), "words": foreign_tokenizer()}
        >>> [window[:4] for window in text_windows("the the the", both, size=9, context=3)]
        [(0, 0, 7, [0, 3, 7]), (4, 7, 11, [7, 11])]
    """
    if not 0 < context < size:
        raise ParameterError("bits_per_byte", "context", f"at least 1 byte and less than the window of {size}", context)
    data, windows, begin, start = text.encode(), list[Window](), 0, 0
    found = _encoded(data, begin, size, tokenizers)
    while True:
        shared = sorted({end for end in set.intersection(*(set(each.ends) for each in found.values())) if end > start})
        last = min(each.ends[-1] for each in found.values())
        if last == len(data):
            windows.append(Window(begin, start, last, [start, *shared], found))
            return windows
        for end in [place for place in reversed(shared) if place < last][:TRIES]:
            next_begin = _character(data, max(0, end - context))
            following = _encoded(data, next_begin, size, tokenizers)
            if all(end in each.ends for each in following.values()):
                break
        else:
            rule = f"must have a place in bytes {start} to {last} at which tokens of all models end"
            raise ModelError(f"bits_per_byte: text {rule}, got none; give a larger window")
        chunks = [start, *(place for place in shared if place <= end)]
        windows.append(Window(begin, start, end, chunks, found))
        begin, start, found = next_begin, end, following


def _encoded(data: bytes, begin: int, size: int, tokenizers: Mapping[str, Any]) -> dict[str, Encoding]:
    """Return the tokens of a window of at most ``size`` bytes.

    Raises:
        ModelError: see `text_windows`.
    """
    text = data[begin : _character(data, min(len(data), begin + size))].decode()
    encodings = {}
    for name, tokenizer in tokenizers.items():
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        ends = token_ends(tokenizer, ids, text)
        if ends is None or not ids:
            where = f"got other bytes for {text[:20]!r}... at byte {begin}"
            rule = "the tokenizer must keep every byte of the text"
            raise ModelError(f"bits_per_byte: {name}: {rule}, {where}; leave the model out, or clean the text")
        encodings[name] = Encoding(list(ids), [begin + end for end in ends])
    return encodings


def _character(data: bytes, place: int) -> int:
    """Return the place itself, or the begin of the character in which it lies."""
    while 0 < place < len(data) and data[place] & 0xC0 == 0x80:
        place -= 1
    return place


def blocks_of(lengths: Sequence[int], size: int) -> list[int]:
    """Return how many chunks make each block of at least ``size`` bytes; the last block may be shorter.

    Example:
        >>> blocks_of([3, 1, 4, 2], 4)
        [2, 1, 1]
    """
    counts, bytes_ = [0], 0
    for length in lengths:
        if bytes_ >= size:
            counts.append(0)
            bytes_ = 0
        counts[-1] += 1
        bytes_ += length
    return [count for count in counts if count]
