"""Tokens that are written only behind other text, and words whose cut depends on the letters that follow."""

from __future__ import annotations

import random
import unicodedata
from functools import cache
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.tokens import CanonicalRules, Vocabulary
from logitkit.processors.tokens.pattern_letters import PatternLetters
from reference.texts_of_all_kinds import text_of_all_kinds
from reference.unigram_covers import UnigramCovers

_SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST = r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "suffixes": rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+{_SUFFIXES}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIXES}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIXES}{_REST}",
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-3": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+{_REST}",
    "letters in brackets": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s+",
    "deepseek": r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+",
}
CORPUS = [
    "✅\n// ok ",
    "I'll go I'm in 'lo 'mo we're x'VE ",
    "#\n//x\n",
    "(a)\n/b ",
    "don't\r\n\r\n  end",
    "日本'll ok's ",
]


@cache
def trained(pattern: str, *, size: int = 330, corpus: tuple[str, ...] = tuple(CORPUS)) -> Any:
    """Return a byte-level BPE tokenizer trained on a few texts."""
    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [text * 9 for text in corpus],
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")


def texts(generator: random.Random, count: int) -> list[str]:
    """Return texts that join pieces of the corpus with other pieces."""
    pieces = [
        "\n//",
        "//",
        "\n",
        "✅",
        "'",
        "'l",
        "l",
        "'ll",
        "'LL",
        "'r",
        "e",
        "'ſ",
        "I",
        "a",
        "B",
        "1",
        " ",
        "/",
        "\r",
        "日",
    ]
    made = ["".join(generator.choices(pieces, k=generator.randint(2, 6))) for _ in range(count)]
    return [*made, *(text_of_all_kinds(generator) for _ in range(count // 4))]


@pytest.mark.parametrize("name", PATTERNS)
def test_the_law_with_tokenizers_trained_on_such_texts(name: str) -> None:
    """Bytes are at least as likely as the tokenizer's own tokens, for 150 texts of such pieces."""
    law = UnigramCovers(trained(PATTERNS[name]))
    cases = ["✅\n// ok", "I'll go", "x'LL", "'lo", "we're", "日本'll", *texts(random.Random(5), 120)]
    assert [text for text in cases if not law.keeps_the_law(unicodedata.normalize("NFC", text))] == []


def test_the_case_of_the_contraction() -> None:
    """ "I'll" is three tokens of one word; the letters of the pattern are tried behind the apostrophe."""
    tokenizer = trained(PATTERNS["suffixes"], size=261, corpus=("I'll go I'm in 'lo 'mo ",))
    law = UnigramCovers(tokenizer)
    rules = CanonicalRules(tokenizer, Vocabulary.of(tokenizer))
    assert [rules.vocabulary.token_bytes[token] for token in rules.encode("I'll")] == [b"I'", b"l", b"l"]
    assert law.by_bytes(b"I'll") == pytest.approx(law.by_tokens("I'll"), abs=1e-4)


def test_a_token_that_is_cut_when_it_stands_alone() -> None:
    """GPT-4o's pattern leaves the token of a line end and two slashes uncut behind a symbol only."""
    tokenizer = trained(PATTERNS["gpt-4o"], size=262, corpus=("!\n// ok ?\n//x #\n//y ",))
    rules = CanonicalRules(tokenizer, Vocabulary.of(tokenizer))
    (token,) = rules.vocabulary.ids_of[b"\n//"]
    assert token in rules.encode("✅\n// ok") and token not in rules.encode("\n// ok")
    context: tuple[int, ...] = ()
    for number in rules.encode("✅"):
        context = rules.extend(context, number)
    assert rules.allows(context, token) and not rules.allows((), token)


def test_letters_of_patterns() -> None:
    """The letters behind an opener come from the pattern; ranges and escapes are no letters."""
    letters = PatternLetters.of(PATTERNS["letters in brackets"])
    assert letters.openers == {"'"} and letters.texts == ("d", "e", "l", "ll", "m", "r", "re", "s", "t", "v", "ve")
    assert PatternLetters.of(PATTERNS["deepseek"]).letters == frozenset()
    assert "ſ" in letters.letters and letters.may_grow("'l") and not letters.may_grow("'ll")
