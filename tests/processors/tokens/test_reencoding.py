"""What may follow what, found by encoding again: against every text of a few letters, and against the rules."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.byte_level.tree import ByteTree
from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.canonical_rules import CanonicalRules, canonical_rules_for
from logitkit.processors.tokens.reencoding import KEPT, LONGEST, Reencoding, completions
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.vocabulary import Vocabulary
from reference.byte_covers import Enumeration, random_model, random_tokenizer, random_unigram


def known(tokenizer: Any) -> tuple[Any, Vocabulary]:
    """A tokenizer and its vocabulary."""
    return tokenizer, Vocabulary.of(tokenizer)


def slow(tokenizer: Any) -> Reencoding:
    """The rule by encoding again, without a warning."""
    return Reencoding(*known(tokenizer))


def written(rule: Reencoding, letters: str, longest: int) -> set[tuple[int, ...]]:
    """What the encodings of all texts of a length begin with."""
    texts = ("".join(text) for text in itertools.product(letters, repeat=longest))
    return {tuple(ids[:count]) for ids in map(rule.encode, texts) for count in range(len(ids) + 1)}


def reached(rule: Reencoding, longest: int) -> set[tuple[int, ...]]:
    """The sequences of at most so many bytes that the rule builds up token by token."""
    found, todo = set(), [((), ())]
    every = np.arange(len(rule.vocabulary))
    while todo:
        ids, context = todo.pop()
        found.add(ids)
        for token in np.flatnonzero(rule.allowed(context, every)).tolist():
            if len(rule.vocabulary.join((*ids, token))) <= longest:
                todo.append(((*ids, token), rule.extend(context, token)))
    return found


def within(rule: Reencoding, sequences: set[tuple[int, ...]], longest: int) -> set[tuple[int, ...]]:
    """Those of at most so many bytes, in whole characters."""
    spelled = {ids: rule.vocabulary.join(ids) for ids in sequences}
    return {
        ids for ids, text in spelled.items() if len(text) <= longest and text.decode(errors="ignore").encode() == text
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_unigram_models_equal_all_texts(seed: int) -> None:
    """What it allows is what the encodings of all texts of eight letters begin with."""
    rule = slow(random_unigram(seed))
    assert within(rule, reached(rule, 4), 4) == within(rule, written(rule, "ab ", 8), 4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_unknown_pretokenizer_equals_all_texts(seed: int) -> None:
    """BPE cut between scripts."""
    tokenizer = random_tokenizer(seed, letters=b"a\xd1\x8f ", merges=6)
    scripts = [pre_tokenizers.UnicodeScripts(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(scripts)
    rule = slow(tokenizer)
    assert within(rule, reached(rule, 4), 4) == within(rule, written(rule, "aя ", 7), 4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", max_size=8), split=st.booleans())
def test_the_rules_say_the_same(seed: int, text: str, split: bool) -> None:
    """Of every token, along a text."""
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
def test_the_rules_say_the_same_of_real_tokenizers(shared_tokenizers: Path, name: str) -> None:
    """Of random tokens, along a text; a token before which only rare characters are cut may be known to the rules."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared_tokenizers / name)
    rules, rule = CanonicalRules(*known(tokenizer)), slow(tokenizer)
    spelled = np.flatnonzero([bool(text) for text in rule.vocabulary.token_bytes])
    generator = np.random.default_rng(0)
    fast_context: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    tails = np.array([number for number in spelled if starts_inside_character(rule.vocabulary.token_bytes[number])])
    for token in rule.encode("She'll pay 1,234  euros — 日本 🎉é\n\n\tx = f(y) ½ 🦜"):
        ids = np.concatenate([[token], generator.choice(spelled, 300), tails])
        got, want = rules.allowed(fast_context, ids), rule.allowed(context, ids)
        assert got.tolist() == want.tolist(), [rule.vocabulary.token_bytes[odd] for odd in ids[got != want]]
        fast_context, context = rules.extend(fast_context, token), rule.extend(context, token)


def test_by_hand() -> None:
    """Of a, b, ab with ab the likelier: "a" "b" is never written; "a" "a" "b" neither, "a" "ab" is."""
    inner = Tokenizer(models.Unigram([("a", -2.0), ("b", -2.0), ("ab", -3.0)]))
    rule = slow(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert rule.allowed((), np.arange(3)).tolist() == [True, True, True]
    assert rule.allowed((0,), np.arange(3)).tolist() == [True, False, True]
    assert rule.may_end((0, 2)) and not rule.may_end((0, 1)) and rule.allows((2,), 1)


def test_open_characters_are_completed() -> None:
    """Byte tokens spell what the vocabulary lacks: the first byte of "é" may come, also where "ê" is known."""
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


@settings(max_examples=200, deadline=None)
@given(char=st.characters(exclude_categories=["Cs"]))
def test_code_points_of_open_characters(char: str) -> None:
    """Those that begin with the first bytes of a character hold it; of whole characters there is one."""
    spelled = char.encode()
    for count in range(1, len(spelled)):
        points = code_points(spelled[:count])
        assert ord(char) in points
        assert chr(points[0]).encode()[:count] == chr(points[-1]).encode()[:count] == spelled[:count]
        assert set(completions(spelled[:count])) <= set(map(chr, points))
    assert list(code_points(spelled)) == [ord(char)]
    for nothing in (b"\xa9", b"\xc0", b"\xc1", b"\xf5", b"\xed\xa0", b"\xe2a", b"\xe0\x80", b"\xf4\x90"):
        assert len(code_points(nothing)) == 0


@pytest.mark.data
def test_byte_tokens_of_characters_that_are_all_known(shared_tokenizers: Path) -> None:
    """Mistral's vocabulary has every character that begins with C3, so no text begins with its byte token."""
    rules = CanonicalRules(*known(PreTrainedTokenizerFast.from_pretrained(shared_tokenizers / "mistral_v1")))
    c3, c4 = rules.vocabulary.ids_of[b"\xc3"], rules.vocabulary.ids_of[b"\xc4"]
    assert len(c3) == len(c4) == 1
    assert not rules.allows((), c3[0]) and rules.allows((), c4[0])


def test_long_contexts_are_cut_where_the_rest_stands_alone() -> None:
    """And what may follow is as after the whole."""
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
def test_byte_laws_of_unigram_models_equal_enumeration(seed: int, text: str, prefix: bool) -> None:
    """P(text), each next byte and the end, forwards in double precision; with a space before every text or without."""
    tokenizer = random_unigram(seed, prefix=prefix)
    model = random_model(tokenizer, seed).double()
    with pytest.warns(UserWarning, match=r"no rules are known \(tokenizer must be a BPE one, got Unigram\)"):
        tree = ByteTree(model, tokenizer)
    plain = random_unigram(seed)
    reference, begun = Enumeration(model, plain), (" " if prefix else "").encode()
    spelled = begun + text.encode()
    assert tree.logp(text.encode()) == pytest.approx(reference.logp(spelled), abs=2e-6)
    law = tree.distribution(text.encode())
    for letter, want in reference.distribution(spelled, b"ab ").items():
        assert float(law.logp[letter]) == pytest.approx(want, abs=2e-6)
    assert float(law.logp.exp().sum()) + law.leak == pytest.approx(1, abs=2e-6)


def test_known_tokenizers_have_rules() -> None:
    """No warning, no encoding again."""
    tokenizer = random_tokenizer(0)
    assert isinstance(canonical_rules_for(*known(tokenizer)), CanonicalRules)
