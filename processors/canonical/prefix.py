"""The part of a token sequence by which the next token is judged, and the tokens that do not fit the ones before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from logitkit.processors.tokens.reencoding import Context, Reencoding


class CanonicalPrefix(NamedTuple):
    """The part of a token sequence by which the next token is judged.

    Attributes:
        context: the last tokens that a tokenizer would write in this order, as the rules keep them.
        restarted: whether some token of the sequence is none that the tokenizer would write behind those before it.
        at_start: whether the sequence has no text yet.
    """

    context: Context
    restarted: bool
    at_start: bool


START = CanonicalPrefix((), restarted=False, at_start=True)


def extended(rules: Reencoding, prefix: CanonicalPrefix, token: int) -> CanonicalPrefix:
    """Return the canonical part of a token sequence after one more token.

    A token that the tokenizer would not write here starts a new part. Special tokens, and ids without text, end a
    part.
    """
    known = token < len(rules.vocabulary)
    if not known or not rules.vocabulary.token_bytes[token]:
        complete = known and token in rules.vocabulary.special and rules.may_end(prefix.context)
        return CanonicalPrefix((), prefix.restarted or not complete, prefix.at_start)
    if rules.allows(prefix.context, token):
        return CanonicalPrefix(rules.extend(prefix.context, token), prefix.restarted, at_start=False)
    alone = rules.extend((), token) if rules.allows((), token) else ()
    return CanonicalPrefix(alone, restarted=True, at_start=False)


def canonical_prefix(rules: Reencoding, tokens: Sequence[int]) -> CanonicalPrefix:
    """Return the part of a token sequence by which the next token is judged.

    Args:
        rules: the rules of the tokenizer.
        tokens: token ids.

    Example:
        >>> from logitkit.processors.tokens import CanonicalRules, Vocabulary
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> rules = CanonicalRules(foreign_tokenizer(), Vocabulary.of(foreign_tokenizer()))
        >>> t, h, the = foreign_tokenizer().convert_tokens_to_ids(["t", "h", "the"])
        >>> canonical_prefix(rules, [the]).restarted, canonical_prefix(rules, [t, h]).restarted
        (False, True)
    """
    prefix = START
    for token in tokens:
        prefix = extended(rules, prefix, token)
    return prefix


def non_canonical_tokens(rules: Reencoding, prompt: Sequence[int], tokens: Sequence[int]) -> list[bool]:
    """Return which tokens the tokenizer would not write behind the tokens before them, whatever text follows.

    A token behind such a token is judged from there on, as in `canonical_prefix`. A special token counts where the
    text before it, encoded again, gives other tokens. Ids without text that are no special tokens count always.

    Args:
        rules: the rules of the tokenizer.
        prompt: token ids before the tokens; they are not judged.
        tokens: token ids.

    Example:
        >>> from logitkit.processors.tokens import CanonicalRules, Vocabulary
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> rules = CanonicalRules(foreign_tokenizer(), Vocabulary.of(foreign_tokenizer()))
        >>> t, h, the = foreign_tokenizer().convert_tokens_to_ids(["t", "h", "the"])
        >>> non_canonical_tokens(rules, [the], [t, h, the])
        [False, True, False]
    """
    prefix, marks = canonical_prefix(rules, prompt), []
    for token in tokens:
        prefix = extended(rules, prefix._replace(restarted=False), token)
        marks.append(prefix.restarted)
    return marks
