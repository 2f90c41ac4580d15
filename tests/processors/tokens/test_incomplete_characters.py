"""Characters whose bytes are several tokens: what can complete them, by hand and against all characters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.tokens import CanonicalRules, Vocabulary
from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.token_bytes import byte_alphabet
from reference.byte_covers import random_tokenizer

CHARACTER_OF = {byte: char for char, byte in byte_alphabet().items()}


def byte_level(merges: Sequence[bytes], *, nfc: bool = False, digits: bool = False) -> Any:
    """Return a byte-level tokenizer with all bytes, GPT-2's pattern, and merges of two bytes each."""
    tokens = [CHARACTER_OF[byte] for byte in range(256)]
    pairs = [(CHARACTER_OF[first], CHARACTER_OF[second]) for first, second in merges]
    known = {token: number for number, token in enumerate([*tokens, *map("".join, pairs)])}
    inner = Tokenizer(models.BPE(vocab=known, merges=pairs))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level]) if digits else level
    inner.decoder = decoders.ByteLevel()
    if nfc:
        inner.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def rules_of(tokenizer: Any) -> CanonicalRules:
    """The rules of a tokenizer."""
    return CanonicalRules(tokenizer, Vocabulary.of(tokenizer))


def follow(rules: CanonicalRules, *tokens: int) -> set[int]:
    """The tokens that may follow some tokens."""
    context: tuple[int, ...] = ()
    for token in tokens:
        assert rules.allows(context, token)
        context = rules.extend(context, token)
    return set(np.flatnonzero(rules.successors(context)).tolist())


def test_a_character_of_another_class_does_not_count() -> None:
    r"""Behind " \n" only a digit is cut off as a whole; where all ten digits of ``\xd9`` are merged, it begins none."""
    merges = [b" \n", *(bytes([0xD9, byte]) for byte in range(0xA0, 0xAA))]
    blank = 256
    whole = rules_of(byte_level(merges, digits=True))
    assert 0xD9 not in follow(whole, blank) and 0xD9 in follow(whole) and 257 in follow(whole, blank)
    one_less = rules_of(byte_level(merges[:-1], digits=True))  # U+0669 is two tokens
    assert 0xD9 in follow(one_less, blank)
    assert follow(one_less, blank, 0xD9) == {0xA9}
    assert one_less.encode(" \n\u0669") == [blank, 0xD9, 0xA9]


def test_characters_that_nfc_replaces_are_never_completed() -> None:
    r"""NFC writes U+095D as two characters, and every character from U+F900 to U+F93F as another one."""
    for nfc in (True, False):
        rules = rules_of(byte_level([], nfc=nfc))
        assert (0x9D in follow(rules, 0xE0, 0xA5)) == (not nfc)
        assert 0xA0 in follow(rules, 0xE0, 0xA5)  # U+0960
        assert (0xA4 in follow(rules, 0xEF)) == (not nfc) and 0xAC in follow(rules, 0xEF)


def test_a_character_that_is_always_one_token_is_not_begun() -> None:
    r"""Where every character of ``\xc3`` is merged, the byte alone is never written; one character less, and it is."""
    merges = [bytes([0xC3, byte]) for byte in range(0x80, 0xC0)]
    assert 0xC3 not in follow(rules_of(byte_level(merges)))
    rules = rules_of(byte_level(merges[1:]))
    assert 0xC3 in follow(rules) and follow(rules, 0xC3) == {0x80}


LETTERS = bytes([0x61, 0x20, 0x31, 0xC3, 0xD9, *range(0x80, 0xC0)])
SOME = [bytes([lead, byte]).decode() for lead in (0xC3, 0xD9) for byte in range(0x80, 0xC0, 5)]
BEHIND = ("", "a", " ", "1", " a", *SOME)


def continued(data: bytes) -> Iterator[str]:
    """All texts of the letters that begin with these bytes and have few more characters; none for other bytes."""
    for end in range(len(data) + 1):
        open_bytes = data[len(data) - end :]
        try:
            text = data[: len(data) - end].decode()
        except UnicodeDecodeError:
            continue
        points = code_points(open_bytes) if open_bytes else range(0)
        yield from (text + char + more for char in map(chr, points) for more in BEHIND)
        if not open_bytes:
            yield from (text + more for more in BEHIND)
        return


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), split=st.booleans(), picks=st.lists(st.integers(0, 999), min_size=1, max_size=3))
def test_rules_equal_all_characters(seed: int, split: bool, picks: list[int]) -> None:
    """Random merges of bytes of two-byte characters: a token may come next exactly if some text begins with it."""
    tokenizer = random_tokenizer(seed, letters=LETTERS, merges=12, split=split)
    rules = rules_of(tokenizer)
    known = [number for number, text in enumerate(rules.vocabulary.token_bytes) if text]
    merged = known[len(LETTERS) :]
    ids: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    for pick in picks:
        mask = rules.successors(context)
        for token in itertools.chain(merged, known[:5], known[5 + pick % 32 :: 32]):
            tried = (*ids, token)
            found = any(
                tuple(rules.encode(text)[: len(tried)]) == tried for text in continued(rules.vocabulary.join(tried))
            )
            assert bool(mask[token]) == found, [rules.vocabulary.token_bytes[each] for each in tried]
        allowed = np.flatnonzero(mask)
        token = int(allowed[pick % len(allowed)])
        ids, context = (*ids, token), rules.extend(context, token)
