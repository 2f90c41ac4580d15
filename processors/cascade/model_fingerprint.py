"""Fingerprints of models, which tie a trained head to the pair of models that it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from logitkit.errors import ModelError
from logitkit.processors.engine.weights_fingerprint import model_fingerprint
from logitkit.processors.tokens.token_agreement import TokenAgreement
from logitkit.processors.tokens.vocabulary import fingerprint


class PairFingerprint(NamedTuple):
    """Fingerprints of a small model, a large model and their tokenizer, as hex digits.

    >>> PairFingerprint(small="a1", large="b2", tokenizer="c3").large
    'b2'
    """

    small: str
    large: str
    tokenizer: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelPair:
    """A small model, a large model and the tokenizer that they share.

    Attributes:
        small, large: the models.
        tokenizer: tokenizer of the small model.
        large_tokenizer: tokenizer of the large model; None: that of the small model.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> pair = ModelPair(small=tiny_model(), large=tiny_model(1), tokenizer=tiny_tokenizer())
    >>> pair.fingerprint().small == pair.fingerprint().large
    False
    """

    small: Any
    large: Any
    tokenizer: Any
    large_tokenizer: Any = None

    @cached_property
    def agreement(self) -> TokenAgreement:
        """How the token ids of the two models agree."""
        return TokenAgreement.of((self.small, self.tokenizer), (self.large, self.large_tokenizer))

    def fingerprint(self) -> PairFingerprint:
        """Return the fingerprints of both models and the tokenizer."""
        return PairFingerprint(
            model_fingerprint(self.small), model_fingerprint(self.large), fingerprint(self.tokenizer)
        )


def check_pair(owner: str, trained_for: PairFingerprint, actual: PairFingerprint) -> None:
    """Refuse a head that was trained for other models.

    Args:
        owner: name that begins the error message.
        trained_for: fingerprint that the head stores.
        actual: fingerprint of the models of this call.

    Raises:
        ModelError: names the first of small, large and tokenizer that differs.

    >>> check_pair("router", PairFingerprint("a", "b", "c"), PairFingerprint("a", "b", "c"))
    """
    parts = ("small model", "large model", "tokenizer")
    for part, expected, present in zip(parts, trained_for, actual, strict=True):
        if expected != present:
            raise ModelError(
                f"{owner}: the head must have been trained for this pair of models, got one for another {part} "
                f"(fingerprint {expected}, here {present}); train one for this pair"
            )
