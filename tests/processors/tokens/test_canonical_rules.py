"""Rules of canonical token sequences, compared with re-encoding on random and on real tokenizers."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.tokens import CanonicalRules, Vocabulary
from real_tokenizers import real_rules
from reference.byte_covers import random_tokenizer

REAL = ("gpt2", "gpt-neox-20b", "mistral_nemo", "mistral_v1", "qwen2_5", "yi")
TEXT = """日本語 emoji 🎉👩‍👩‍👧 naïve é it's we'll I'M don''t 'tis 1234567 3.14  a   b \r\n\r
\t\tx\u00a0y ½ Ⅷ (!!)


  }
def add(a: int, b: int) -> int:
    \"\"\"Add.

    >>> add(1, 22)
    23
    \"\"\"
    return a + b  # 2,000
In a village of La Mancha, the name of which I have no desire to call to mind, there lived not long since...
"""
SHORT = ("", "a", "b", " ", "'", " a", "aa", "ab", "ba", "bb", " '", "s")
AHEAD = ("", "a", " ", "1", ".", "\n", "s", "A", "一", "'", " a", "\n\n", " .", "ʤ", "é", "z", "  ", "11", "½", "。")


def canonical(tokenizer: Any) -> CanonicalRules:
    """The rules of a tokenizer."""
    return CanonicalRules(tokenizer, Vocabulary.of(tokenizer))


def begins_an_encoding(rule: CanonicalRules, ids: tuple[int, ...], ahead: tuple[str, ...] = AHEAD) -> bool:
    """Return whether the encoding of these tokens' text with some continuation starts with the tokens."""
    text = rule.vocabulary.join(ids).decode()
    return any(tuple(rule.encode(text + y)[: len(ids)]) == ids for y in ahead)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), picks=st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_a_token_is_allowed_if_some_encoding_starts_with_the_sequence(seed: int, picks: list[int]) -> None:
    """With the GPT-2 pretokenizer, a token is allowed exactly if the encoding of some text starts with the sequence."""
    rule = canonical(random_tokenizer(seed, letters=b"ab '", merges=8))
    known = [number for number, text in enumerate(rule.vocabulary.token_bytes) if text]
    context: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    for pick in picks:
        ids = (*ids, known[pick % len(known)])
        allowed = rule.allows(context, ids[-1])
        assert allowed == begins_an_encoding(rule, ids, SHORT)
        if not allowed:
            break
        context = rule.extend(context, ids[-1])


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers(shared_tokenizers: Path, name: str) -> None:
    """The tokens of a text are allowed; another token is allowed exactly if some encoding continues with it.

    At every sixth place the whole vocabulary is examined, which takes most of the time, and elsewhere ten tokens.
    """
    rule = real_rules(shared_tokenizers / name)
    ids = rule.encode(unicodedata.normalize("NFC", TEXT))
    generator, context = random.Random(0), ()
    with_bytes = [number for number, text in enumerate(rule.vocabulary.token_bytes) if text]
    refused = 0
    for place, token in enumerate(ids):
        others = generator.choice(with_bytes), generator.choice(ids)
        some = np.array([token, *others, *generator.choices(with_bytes, k=7)])
        answers = rule.successors(context)[some] if place % 6 == 0 else rule.allowed(context, some)
        allowed = dict(zip(some.tolist(), answers.tolist(), strict=True))
        assert allowed[token], (rule.vocabulary.join(context), rule.vocabulary.token_bytes[token])
        for other in others:
            tried = (*ids[max(0, place - 12) : place], other)
            try:
                want = begins_an_encoding(rule, tuple(tried))
            except UnicodeDecodeError:
                continue
            refused += not want
            assert allowed[other] == want, (rule.vocabulary.join(ids[:place][-6:]), rule.vocabulary.token_bytes[other])
        context = rule.extend(context, token)
    assert rule.may_end(context) and rule.is_canonical(ids) and refused > 5


@pytest.mark.data
@pytest.mark.parametrize("name", ["mistral_v1", "gpt2"])
def test_some_tokens_are_decided_as_in_the_whole_vocabulary(shared_tokenizers: Path, name: str) -> None:
    """`allowed` examines the shapes of the given tokens alone, and agrees with `successors` behind any token."""
    rule, generator = real_rules(shared_tokenizers / name), np.random.default_rng(0)
    every, context = np.arange(len(rule.vocabulary)), ()
    for token in rule.encode("She'll pay 1,234  euros — 日本 🎉é\n\n\tx ½ 🦜"):
        ids = generator.choice(every, (4, 50))
        got = rule.allowed(context, ids)
        assert got.shape == ids.shape and got.tolist() == rule.successors(context)[ids].tolist()
        context = rule.extend(context, token)


@pytest.mark.data
def test_white_space_whose_cut_depends_on_what_follows(shared_tokenizers: Path) -> None:
    """The text of "a", " ", " " has other tokens, but with a letter after it, its encoding starts with these."""
    rule = real_rules(shared_tokenizers / "qwen2_5")
    a, space = rule.encode("a")[0], rule.encode(" ")[0]
    context = rule.extend(rule.extend((), a), space)
    assert rule.allows(context, space) and not rule.is_canonical([a, space, space])
    assert not rule.may_end(rule.extend(context, space))


def byte_level(tokens: list[str], pattern: str) -> Any:
    """Return a byte-level BPE tokenizer in which the last merge of each token appends its last character."""
    known = {token: number for number, token in enumerate(tokens)}
    inner = Tokenizer(models.BPE(vocab=known, merges=[(token[:-1], token[-1]) for token in tokens if len(token) > 1]))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_a_word_and_the_contraction_behind_it() -> None:
    """The token "I'" begins the encoding of "I's" where both are one word, as in GPT-4o's tokenizer."""
    rule = canonical(byte_level(["I", "'", "s", "t", "I'"], r"\p{L}+(?i:'s|'t)?|\p{P}"))
    assert rule.encode("I's") == [4, 2] and rule.allows((), 4)
    assert rule.encode("I'") == [0, 1] and not rule.may_end((4,))


def test_letters_that_a_pattern_distinguishes() -> None:
    """With a pattern for ASCII letters, as in DeepSeek's tokenizer, ".b" is one word and ".é" is two words."""
    tokens = [".", "b", "Ã", "©", ".b"]
    rule = canonical(byte_level(tokens, r"\.[A-Za-z]+|\p{L}+|\."))
    assert rule.encode(".b") == [4] and rule.encode(".é") == [0, 2, 3]
    assert rule.allowed((0,), np.arange(4)).tolist() == [True, False, True, False]


def test_tokens_that_are_never_written() -> None:
    """A byte-level tokenizer never writes a token outside its alphabet, such as the emoji in Command R's vocabulary."""
    rule = canonical(byte_level(["a", "🍽"], r"\p{L}+"))
    assert rule.successors(()).tolist() == [True, False]


def test_added_tokens_keep_their_ids() -> None:
    """Text that is spelled like a special token is encoded as text, and added tokens keep their ids."""
    tokenizer = byte_level(["a", "s", "<", ">"], r"\p{L}+")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "<ss>"]})
    tokenizer.add_tokens(["<a>"])
    rule = canonical(tokenizer)
    assert rule.encode("a<a><s>") == [0, 6, 2, 1, 3] and rule.allows((0,), 6)


def test_a_cut_before_an_incomplete_character_is_inside_its_token() -> None:
    """The token "(" with the first byte of "ж" is never written behind ":", where the word is ":("."""
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: number for number, char in enumerate([*alphabet, "(Ð"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("(", "Ð")]))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    rules = canonical(PreTrainedTokenizerFast(tokenizer_object=inner))
    colon, letter, opened = vocabulary[":"], vocabulary["a"], vocabulary["(Ð"]
    assert inner.encode("(ж").tokens[0] == inner.encode("a(ж").tokens[1] == "(Ð"
    assert inner.encode(":(ж").tokens == [":", "(", "Ð", "¶"]
    assert rules.allows((), opened) and rules.allows(rules.extend((), letter), opened)
    assert not rules.allows(rules.extend((), colon), opened)
    assert opened in rules.forbidden(rules.extend((), colon))
