"""Tokens that the tokenizer would not write: by hand, against the encodings of all texts, and against re-encoding."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.canonical import canonical_prefix, non_canonical_tokens
from logitkit.processors.canonical.rules import RuleSource
from logitkit.processors.tokens import Reencoding, Vocabulary
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
from reference.byte_covers import random_tokenizer


def ids_of(*tokens: str) -> list[int]:
    """Ids of tokens of the foreign tokenizer."""
    return list(foreign_tokenizer().convert_tokens_to_ids(list(tokens)))


def marks(*tokens: str, prompt: tuple[str, ...] = ()) -> list[bool]:
    """Which tokens of the foreign tokenizer are marked behind a prompt."""
    rules = RuleSource(foreign_tokenizer(), 300).rules()
    return non_canonical_tokens(rules, ids_of(*prompt), ids_of(*tokens))


def test_by_hand() -> None:
    """Behind "t" the tokenizer never writes "h"; a new part begins there, so "e" behind that "h" is its own token."""
    assert marks("the", "on") == [False, False]
    assert marks("t", "h", "o", "n") == [False, True, False, True]
    assert marks("h", prompt=("t",)) == [True] and marks("h", prompt=("the",)) == [False]
    assert marks("o", prompt=("t", "h")) == [False]  # the prompt itself is not judged
    assert marks() == []


def test_end_tokens_and_ids_without_text() -> None:
    """The text may end behind "the", not inside a character; an id that the tokenizer lacks is always marked."""
    first, second = foreign_tokenizer()("ж", add_special_tokens=False)["input_ids"]
    (end,) = ids_of("<end>")
    rules = RuleSource(foreign_tokenizer(), 300).rules()
    assert non_canonical_tokens(rules, [], [first, second, end]) == [False, False, False]
    assert non_canonical_tokens(rules, [], [first, end]) == [False, True]
    assert non_canonical_tokens(rules, [], [299]) == [True]
    assert marks("the", "<end>", "t") == [False, False, False]


@settings(max_examples=25)
@given(seed=st.integers(0, 30), tokens=st.lists(st.integers(0, 10), max_size=4), split=st.booleans())
def test_marks_equal_all_texts(seed: int, tokens: list[int], split: bool) -> None:
    """No token is marked exactly if the tokens begin the encoding of some text of up to three letters more."""
    tokenizer = random_tokenizer(seed, merges=6, split=split)
    vocabulary = Vocabulary.of(tokenizer)
    usable = [number for number, text in enumerate(vocabulary.token_bytes) if text and len(text) < 3]
    ids = [usable[token % len(usable)] for token in tokens]
    text = vocabulary.join(ids).decode()
    more = ("".join(letters) for count in range(4) for letters in itertools.product("ab ", repeat=count))
    encodings = (tokenizer(text + end, add_special_tokens=False)["input_ids"] for end in more)
    begins = any(encoding[: len(ids)] == ids for encoding in encodings)
    assert any(non_canonical_tokens(RuleSource(tokenizer).rules(), [], ids)) == (not begins)


@settings(max_examples=25)
@given(tokens=st.lists(st.sampled_from(["t", "h", "e", "o", "n", "the", "on", "Ġ", "Ð", "¶"]), max_size=6))
def test_rules_equal_reencoding(tokens: list[str]) -> None:
    """The rules and the slow encoding of texts mark the same tokens, also behind a first mark."""
    ids = ids_of(*tokens)
    slow: Any = Reencoding(foreign_tokenizer(), Vocabulary.of(foreign_tokenizer(), 300))
    fast = RuleSource(foreign_tokenizer(), 300).rules()
    assert non_canonical_tokens(fast, [], ids) == non_canonical_tokens(slow, [], ids)
    assert any(non_canonical_tokens(fast, [], ids)) == canonical_prefix(fast, ids).restarted


def test_a_tokenizer_of_bytes_marks_what_is_not_utf8() -> None:
    """Every text of bytes is the tokenizer's own; a byte that starts no character is none."""
    rules = RuleSource(tiny_tokenizer()).rules()
    for data, want in (("né".encode(), [False, False, False]), (b"n\xffn", [False, True, False])):
        ids = [rules.vocabulary.ids_of[bytes([byte])][0] for byte in data]
        assert non_canonical_tokens(rules, [], ids) == want
