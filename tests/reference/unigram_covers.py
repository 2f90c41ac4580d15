"""The acceptance law under a random distribution of single tokens, which needs no model and is therefore cheap.

Each token has the same probability at every place. The sum over the covers of a text is then the one that `ByteTree`
computes for a model that ignores its context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.tokens import Vocabulary


@dataclass
class SameEverywhere:
    """A node of the KV tree whose log-probabilities do not depend on the place."""

    logp: Any


class UnigramCovers:
    """Log-probabilities of texts by their bytes and by the tokenizer's own tokens.

    Args:
        tokenizer: a fast tokenizer.
        seed: of the tokens' probabilities.
        covers: the covers of the tokenizer; None: they are computed.
    """

    def __init__(self, tokenizer: Any, seed: int = 0, *, covers: Covers | None = None) -> None:
        self.tokenizer, self.vocabulary = tokenizer, Vocabulary.of(tokenizer)
        self.covers = covers or Covers.of(tokenizer, self.vocabulary)
        logits = 2 * np.random.default_rng(seed).standard_normal(len(self.vocabulary))
        self.logp = logits - logsumexp(logits)

    def by_bytes(self, text: bytes) -> float:
        """Return the log-probability in nats that a text begins with these bytes."""
        begin: Any = Hypothesis(context=(), start=0, node=SameEverywhere(self.logp))  # type: ignore[arg-type]
        live = self.covers.live(begin, text, lenient=False)
        return logsumexp([self.covers.log_mass(hypothesis, text) for hypothesis in live])

    def by_tokens(self, text: str) -> float | None:
        """Return the log-probability in nats of the tokenizer's tokens; None where these tokens lose bytes."""
        assert self.covers.encode is not None
        tokens = self.covers.encode(text)
        if self.vocabulary.join(tokens) != text.encode():
            return None
        return float(self.logp[tokens].sum())

    def keeps_the_law(self, text: str) -> bool:
        """Return whether the bytes are at least as likely as the tokens; True where the tokens lose bytes."""
        by_tokens = self.by_tokens(text)
        return by_tokens is None or self.by_bytes(text.encode()) >= by_tokens - 1e-4
