"""Rules for the tokens that may follow a token sequence in a cover.

`SuccessorRule` is the protocol. `logitkit.processors.tokens.canonical_rules.CanonicalRules` and
`logitkit.processors.tokens.reencoding.Reencoding` implement it for canonical covers; `EveryToken` implements it for
all covers.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from logitkit.processors.tokens.reencoding import Context, Ids, Mask
from logitkit.processors.tokens.vocabulary import Vocabulary


class SuccessorRule(Protocol):
    """Decides which tokens may follow a context and whether a text may end after it, and updates the context.

    A context is the part of a token sequence on which the answers of the rule depend: its last tokens.
    """

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Return which of the tokens ``ids`` may follow the context; same shape as ``ids``."""

    def extend(self, context: Context, token: int) -> Context:
        """Return the context after one more token."""

    def may_end(self, context: Context) -> bool:
        """Return whether a text may end after the context."""


class EveryToken:
    """Rule under which every token with bytes may follow any token sequence (Vieira et al., arXiv:2412.03719).

    The covers under this rule are all tokenizations of a text, not only those that the tokenizer writes.

    Args:
        vocabulary: the tokens as bytes. Special tokens and padding ids have no bytes and are never allowed.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> rule = EveryToken(Vocabulary.of(tiny_tokenizer()))
    >>> rule.allowed((), np.array([0, tiny_tokenizer().eos_token_id]))
    array([ True, False])
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._has_bytes = np.array([bool(spelled) for spelled in vocabulary.token_bytes])

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Return which of the tokens ``ids`` have bytes; same shape as ``ids``."""
        mask: Mask = self._has_bytes[ids]
        return mask

    def extend(self, context: Context, token: int) -> Context:
        """Return the empty context: the rule does not depend on earlier tokens."""
        return ()

    def may_end(self, context: Context) -> bool:
        """Return True: a text may end after any token."""
        return True
