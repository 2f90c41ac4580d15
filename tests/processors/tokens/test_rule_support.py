"""Tokenizers with and without rules of canonical sequences."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ModelError
from logitkit.processors.tokens import CanonicalRules, Reencoding, Vocabulary, canonical_rules_for
from logitkit.processors.tokens.rule_support import UnsupportedPart, unsupported_part
from logitkit.processors.tokens.tokenizer_description import description
from reference.byte_covers import random_tokenizer


def unigram() -> Any:
    """A unigram tokenizer of one token."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", -1.0)])))


def bpe(*, cutter: Any = None, **settings: Any) -> Any:
    """A BPE tokenizer of one token, with a pretokenizer."""
    inner = Tokenizer(models.BPE(vocab={"a": 0}, merges=[], **settings))
    if cutter is not None:
        inner.pre_tokenizer = cutter
    return PreTrainedTokenizerFast(tokenizer_object=inner)


UNSUPPORTED = [
    (unigram(), UnsupportedPart("model", "Unigram"), "model Unigram"),
    (bpe(cutter=pre_tokenizers.UnicodeScripts()), UnsupportedPart("pretokenizer", "UnicodeScripts"), "UnicodeScripts"),
    (
        bpe(continuing_subword_prefix="##"),
        UnsupportedPart("model", "BPE with continuing_subword_prefix"),
        "continuing_subword_prefix",
    ),
]


@pytest.mark.parametrize(("tokenizer", "part", "words"), UNSUPPORTED)
def test_tokenizers_without_rules(tokenizer: Any, part: UnsupportedPart, words: str) -> None:
    """The error and the warning name the part without rules, and re-encoding replaces the rules."""
    vocabulary = Vocabulary.of(tokenizer)
    assert unsupported_part(description(tokenizer)) == part
    with pytest.raises(ModelError, match=f"got .*{words}; use Reencoding"):
        CanonicalRules(tokenizer, vocabulary)
    with pytest.warns(UserWarning, match=f"the tokenizer's .*{words} has no rules. Re-encoding finds"):
        rules = canonical_rules_for(tokenizer, vocabulary)
    assert type(rules) is Reencoding


def test_tokenizers_with_rules() -> None:
    """A BPE tokenizer with a known pretokenizer gets rules without a warning."""
    tokenizer = random_tokenizer(0)
    assert unsupported_part(description(tokenizer)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(canonical_rules_for(tokenizer, Vocabulary.of(tokenizer)), CanonicalRules)
