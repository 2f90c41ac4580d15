"""Byte tokens, and the characters that their bytes can start."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.reencoding import completions
from real_tokenizers import real_rules, real_tokenizer


@settings(max_examples=200, deadline=None)
@given(char=st.characters(exclude_categories=["Cs"]))
def test_code_points_of_incomplete_characters(char: str) -> None:
    """The characters with the first bytes of a given character include this character; all its bytes fix it."""
    char_bytes = char.encode()
    for count in range(1, len(char_bytes)):
        points = code_points(char_bytes[:count])
        assert ord(char) in points
        assert chr(points[0]).encode()[:count] == chr(points[-1]).encode()[:count] == char_bytes[:count]
        assert set(completions(char_bytes[:count])) <= set(map(chr, points))
    assert list(code_points(char_bytes)) == [ord(char)]
    for nothing in (b"\xa9", b"\xc0", b"\xc1", b"\xf5", b"\xed\xa0", b"\xe2a", b"\xe0\x80", b"\xf4\x90"):
        assert len(code_points(nothing)) == 0


@pytest.mark.data
def test_byte_tokens_of_characters_that_are_all_known(shared_tokenizers: Path) -> None:
    """Mistral never writes byte token C3, because its vocabulary has all characters that start with C3."""
    tokenizer, rules = real_tokenizer(shared_tokenizers / "mistral_v1"), real_rules(shared_tokenizers / "mistral_v1")
    c3, c4 = rules.vocabulary.ids_of[b"\xc3"], rules.vocabulary.ids_of[b"\xc4"]
    assert len(c3) == len(c4) == 1
    assert not rules.allows((), c3[0]) and rules.allows((), c4[0])
    e2, x96, x80, x81 = (rules.vocabulary.ids_of[byte][0] for byte in (b"\xe2", b"\x96", b"\x80", b"\x81"))
    context = rules.extend(rules.extend((), e2), x96)  # U+2580 to U+25BF; the tokenizer replaces U+2581 by a space
    assert rules.allows(context, x80) != ("\u2580" in tokenizer.get_vocab()) and not rules.allows(context, x81)


def test_code_points_of_every_two_bytes() -> None:
    """The code points of every byte and of every two bytes are those whose encodings begin so, by enumeration."""
    want: dict[bytes, list[int]] = {}
    for code in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        encoded = chr(code).encode()
        for prefix in {encoded[:1], encoded[:2]}:
            first_and_count = want.setdefault(prefix, [code, 0])
            first_and_count[1] += 1
    for prefix in map(bytes, itertools.chain(itertools.product(range(256)), itertools.product(range(256), repeat=2))):
        points = code_points(prefix)
        surrogates = len(range(max(points.start, 0xD800), min(points.stop, 0xE000)))
        first, count = want.get(prefix, [points.start, 0])
        assert (points.start, len(points) - surrogates) == (first, count), prefix
