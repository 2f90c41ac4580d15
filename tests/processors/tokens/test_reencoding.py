"""Canonical sequences by re-encoding, compared with every text of a few letters and with the rules."""

from __future__ import annotations

import itertools
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.byte_level.tree import ByteTree
from logitkit.processors.tokens import CanonicalRules, Reencoding, Vocabulary
from logitkit.processors.tokens.reencoding import KEPT, LONGEST, completions
from logitkit.processors.tokens.token_bytes import starts_inside_character
from real_tokenizers import real_rules, real_tokenizer
from reference.byte_covers import Enumeration, random_model, random_tokenizer, random_unigram


def known(tokenizer: Any) -> tuple[Any, Vocabulary]:
    """A tokenizer and its vocabulary."""
    return tokenizer, Vocabulary.of(tokenizer)


def slow(tokenizer: Any) -> Reencoding:
    """Return the re-encoding of a tokenizer, with or without rules."""
    return Reencoding(*known(tokenizer))


def written(rule: Reencoding, letters: str, longest: int) -> set[tuple[int, ...]]:
    """Return all beginnings of the encodings of all texts of ``longest`` letters."""
    texts = ("".join(text) for text in itertools.product(letters, repeat=longest))
    return {tuple(ids[:count]) for ids in map(rule.encode, texts) for count in range(len(ids) + 1)}


def reached(rule: Reencoding, longest: int) -> set[tuple[int, ...]]:
    """Return all sequences of allowed tokens of at most ``longest`` bytes."""
    sequences, pending = set(), [((), ())]
    every = np.arange(len(rule.vocabulary))
    while pending:
        ids, context = pending.pop()
        sequences.add(ids)
        for token in np.flatnonzero(rule.allowed(context, every)).tolist():
            if len(rule.vocabulary.join((*ids, token))) <= longest:
                pending.append(((*ids, token), rule.extend(context, token)))
    return sequences


def within(rule: Reencoding, sequences: set[tuple[int, ...]], longest: int) -> set[tuple[int, ...]]:
    """Return the sequences of at most ``longest`` bytes that end with a whole character."""
    texts = {ids: rule.vocabulary.join(ids) for ids in sequences}
    return {
        ids for ids, text in texts.items() if len(text) <= longest and text.decode(errors="ignore").encode() == text
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_unigram_models_equal_all_texts(seed: int) -> None:
    """The allowed sequences of a unigram model are the beginnings of the encodings of all texts of eight letters."""
    rule = slow(random_unigram(seed))
    assert within(rule, reached(rule, 4), 4) == within(rule, written(rule, "ab ", 8), 4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_unknown_pretokenizer_equals_all_texts(seed: int) -> None:
    """The allowed sequences of a BPE model without rules are the beginnings of the encodings of all texts."""
    tokenizer = random_tokenizer(seed, letters=b"a\xd1\x8f ", merges=6)
    scripts = [pre_tokenizers.UnicodeScripts(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(scripts)
    rule = slow(tokenizer)
    assert within(rule, reached(rule, 4), 4) == within(rule, written(rule, "aя ", 7), 4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", max_size=8), split=st.booleans())
def test_rules_and_reencoding_agree(seed: int, text: str, split: bool) -> None:
    """After each token of a text, the rules and re-encoding allow the same tokens and the same end."""
    tokenizer = random_tokenizer(seed, merges=10, split=split)
    rules, rule = CanonicalRules(*known(tokenizer)), slow(tokenizer)
    every = np.arange(len(rule.vocabulary))
    fast_context: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    for token in [*rule.encode(text), None]:
        assert rules.allowed(fast_context, every).tolist() == rule.allowed(context, every).tolist()
        assert rules.may_end(fast_context) == rule.may_end(context)
        if token is not None:
            fast_context, context = rules.extend(fast_context, token), rule.extend(context, token)


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "mistral_v1"])
def test_rules_and_reencoding_agree_on_real_tokenizers(shared_tokenizers: Path, name: str) -> None:
    """After each token of a text, both allow the same among 300 random tokens and all ends of characters."""
    rules, rule = real_rules(shared_tokenizers / name), slow(real_tokenizer(shared_tokenizers / name))
    with_bytes = np.flatnonzero([bool(text) for text in rule.vocabulary.token_bytes])
    generator = np.random.default_rng(0)
    fast_context: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    tails = np.array([number for number in with_bytes if starts_inside_character(rule.vocabulary.token_bytes[number])])
    for token in rule.encode("She'll pay 1,234  euros — 日本 🎉é\n\n\tx = f(y) ½ 🦜"):
        ids = np.concatenate([[token], generator.choice(with_bytes, 300), tails])
        got, want = rules.allowed(fast_context, ids), rule.allowed(context, ids)
        assert got.tolist() == want.tolist(), [rule.vocabulary.token_bytes[odd] for odd in ids[got != want]]
        fast_context, context = rules.extend(fast_context, token), rule.extend(context, token)


def test_a_unigram_model_by_hand() -> None:
    """If "ab" is more likely than "a" and "b" together, "a" "b" is not canonical, and "a" "ab" is."""
    inner = Tokenizer(models.Unigram([("a", -2.0), ("b", -2.0), ("ab", -3.0)]))
    rule = slow(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert rule.allowed((), np.arange(3)).tolist() == [True, True, True]
    assert rule.allowed((0,), np.arange(3)).tolist() == [True, False, True]
    assert rule.may_end((0, 2)) and not rule.may_end((0, 1)) and rule.allows((2,), 1)


def test_incomplete_characters_are_completed() -> None:
    """A byte token can start a character that the vocabulary lacks, and only its bytes can complete it."""
    tokens = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("a", -1.0), ("ê", -1.0)]
    inner = Tokenizer(models.Unigram(tokens, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    rule = slow(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))
    c3, a9, aa = 1 + 0xC3, 1 + 0xA9, 1 + 0xAA  # é is C3 A9, ê is C3 AA
    assert rule.allowed((), np.array([c3, a9, 257, 258])).tolist() == [True, False, True, True]
    assert rule.allowed((c3,), np.array([a9, aa, 257])).tolist() == [True, False, False]
    assert not rule.may_end((c3,)) and rule.may_end((c3, a9))
    assert len(completions(b"\xc3")) == 64 and "日" in completions("日".encode()[:2])
    assert all(char.encode().startswith(b"\xf0") for char in completions(b"\xf0"))


def test_long_contexts_are_cut() -> None:
    """The context of a long text is a short canonical sequence."""
    tokenizer = random_unigram(3)
    rule = slow(tokenizer)
    generator = random.Random(0)
    context: tuple[int, ...] = ()
    for token in rule.encode("".join(generator.choices("ab ", k=150))):
        context = rule.extend(context, token)
        assert len(context) <= LONGEST + 8 and rule.is_canonical(context)
    assert len(context) >= KEPT


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", max_size=6), prefix=st.booleans())
def test_byte_distributions_of_unigram_models_equal_enumeration(seed: int, text: str, prefix: bool) -> None:
    """The probabilities of a text, of each next byte and of the end equal enumeration, to 2e-6 nats."""
    tokenizer = random_unigram(seed, prefix=prefix)
    model = random_model(tokenizer, seed).double()
    with pytest.warns(UserWarning, match="the tokenizer's model Unigram has no rules"):
        tree = ByteTree(model, tokenizer)
    plain = random_unigram(seed)
    reference = Enumeration(model, plain)
    written = ((" " if prefix else "") + text).encode()
    assert tree.logp(text.encode()) == pytest.approx(reference.logp(written), abs=2e-6)
    distribution = tree.distribution(text.encode())
    for letter, want in reference.distribution(written, b"ab ").items():
        assert float(distribution.logp[letter]) == pytest.approx(want, abs=2e-6)
    assert float(distribution.logp.exp().sum()) + distribution.leak == pytest.approx(1, abs=2e-6)


def test_completions_include_rare_categories() -> None:
    """The only white space among 4,096 characters is a completion, and so is punctuation of the astral planes."""
    assert "\u1680" in completions(b"\xe1")
    assert {unicodedata.category(char) for char in completions(b"\xf0")} >= {"Po", "Nd", "Sm", "Nl"}
