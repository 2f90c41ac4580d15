"""The notation of bytes in a vocabulary."""

from __future__ import annotations

from logitkit.processors.tokens.token_bytes import byte_alphabet, starts_inside_character


def test_the_byte_alphabet_by_hand() -> None:
    """In the byte alphabet a letter stands for itself, "Ġ" for a space; every byte has one character."""
    alphabet = byte_alphabet()
    assert (alphabet["a"], alphabet["Ġ"], alphabet["Ċ"]) == (97, 32, 10)
    assert sorted(alphabet.values()) == list(range(256))


def test_bytes_that_start_inside_a_character() -> None:
    """Only a continuation byte of UTF-8 starts inside a character."""
    inside = [
        text for text in (None, b"", b"a", b"\xc3", b"\xa9", b"\xbf\xc3", b"\xc0") if starts_inside_character(text)
    ]
    assert inside == [b"\xa9", b"\xbf\xc3"]
