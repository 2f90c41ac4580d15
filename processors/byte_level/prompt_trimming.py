"""Trimming of a prompt to the last token that all canonical covers of its text share.

The removed bytes are the ones whose tokenization depends on the text that follows. `ByteBoundary` makes the
continuation begin with these bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.tokens.vocabulary import Vocabulary

SENTINELS = (  # prefix, suffix and middle sentinel of the known fill-in-the-middle formats
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrimmedPrompt:
    """A prompt without its last bytes.

    Attributes:
        tokens: the tokens that are left.
        context_tokens: the last of these tokens, from which canonical covers of the removed bytes continue.
        removed: the bytes with which the continuation must begin; empty where nothing was removed.
    """

    tokens: list[int]
    context_tokens: list[int]
    removed: bytes


def trim(tokens: Sequence[int], tokenizer: Any, vocabulary: Vocabulary, covers: Covers) -> tuple[list[int], bytes]:
    """Trim a prompt to the last token that all canonical covers of its text share; at least one token is kept.

    Text before a special token is not trimmed. In a fill-in-the-middle prompt that ends with the middle sentinel, the
    last bytes of the prefix are removed, and the continuation after the sentinel begins with them. The prefix may
    come before or after the suffix. The boundary between middle and suffix sets no condition, because the suffix
    precedes the middle in the prompt.

    Args:
        tokens: the prompt.
        tokenizer: the tokenizer of the prompt.
        vocabulary: its tokens as bytes.
        covers: its canonical covers.

    Returns:
        The tokens that are left and the removed bytes; all tokens and no bytes where no canonical cover of the
        removed bytes continues from the trimmed prompt.

    >>> from logitkit.registry.laws import foreign_tokenizer
    >>> tokenizer = foreign_tokenizer()  # has the tokens "th", "the" and " the"
    >>> vocabulary = Vocabulary.of(tokenizer)
    >>> ids = tokenizer("on th")["input_ids"]
    >>> trimmed, removed = trim(ids, tokenizer, vocabulary, Covers.of(tokenizer, vocabulary))
    >>> vocabulary.join(trimmed), removed
    (b'on', b' th')
    """
    tokens = list(tokens)
    middle = _end_of_fim_prefix(tokens, tokenizer)
    stop = len(tokens) if middle is None else middle
    text_tokens = text_behind_special_tokens(tokens[:stop], tokenizer, vocabulary)
    first = stop - len(text_tokens)
    text = vocabulary.join(text_tokens)
    shared = len(vocabulary.join(covers.of_text(text).tokens))
    lengths = [len(vocabulary.join(text_tokens[:count])) for count in range(len(text_tokens) + 1)]
    kept = max(count for count, length in enumerate(lengths) if length <= shared)
    kept = max(kept, 1 - first)  # the model needs one token to begin with
    removed = text[len(vocabulary.join(text_tokens[:kept])) :]
    before = text_tokens[:kept] if middle is None else []
    if not removed or covers.placing_context(before, removed) is None:
        return tokens, b""
    return tokens[: first + kept] + tokens[stop:], removed


def described_end(tokens: Sequence[int], tokenizer: Any, vocabulary: Vocabulary) -> str:
    """Return which end of a prompt is trimmed, in brackets, for notices; an empty string for ordinary prompts.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> tokenizer = tiny_tokenizer()
    >>> described_end([5, tokenizer.eos_token_id], tokenizer, Vocabulary.of(tokenizer))
    ' (the prompt ends with a special token)'
    """
    if _end_of_fim_prefix(tokens, tokenizer) is not None:
        return " (of the prefix of a fill-in-the-middle prompt)"
    ends_with_special = bool(tokens) and not text_behind_special_tokens(tokens, tokenizer, vocabulary)
    return " (the prompt ends with a special token)" if ends_with_special else ""


def _end_of_fim_prefix(tokens: Sequence[int], tokenizer: Any) -> int | None:
    """Return where the prefix of a fill-in-the-middle prompt ends; None for a prompt of another form.

    The prefix ends at the sentinel of the suffix, or at the sentinel of the middle in a prompt that has the suffix
    first. A suffix-first prompt whose prefix follows the middle sentinel ends with its prefix, as any other prompt.
    """
    ids = tokenizer.get_vocab()
    for names in SENTINELS:
        if all(name in ids for name in names):
            prefix, suffix, middle = (ids[name] for name in names)
            if tokens and tokens[-1] == middle and prefix in tokens and suffix in tokens:
                suffix_place = tokens.index(suffix)
                return suffix_place if tokens.index(prefix) < suffix_place else len(tokens) - 1
    return None


def text_behind_special_tokens(tokens: Sequence[int], tokenizer: Any, vocabulary: Vocabulary) -> list[int]:
    """Return the tokens after the last special token or fill-in-the-middle sentinel.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> tokenizer = tiny_tokenizer()
    >>> text_behind_special_tokens([5, tokenizer.eos_token_id, 6, 7], tokenizer, Vocabulary.of(tokenizer))
    [6, 7]
    """
    ids = tokenizer.get_vocab()
    separators = vocabulary.special | {ids[name] for names in SENTINELS for name in names if name in ids}
    places = [place for place, token in enumerate(tokens) if token in separators]
    return list(tokens[places[-1] + 1 if places else 0 :])
