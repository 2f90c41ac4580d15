"""Texts of tokens and divergences."""

from __future__ import annotations

from inspections import inspect_tiny_model
from logitkit.inspection.formatting import format_bits, spoken_text, visible_text
from logitkit.registry.laws import tiny_tokenizer


def test_white_space_and_partial_characters_are_visible() -> None:
    """Spaces, line breaks, incomplete characters and special tokens have distinct texts."""
    inspection = inspect_tiny_model("")
    byte, end = tiny_tokenizer().convert_tokens_to_ids(["Ã", "</s>"])  # the byte-level alphabet writes byte 0xC3 as Ã
    assert [inspection.token_text(number) for number in (byte, end)] == ["\\xc3", "</s>"]
    assert visible_text(" a\n\t\x00") == "␣a⏎⇥\\x00"
    assert [spoken_text(text) for text in (" a", "\n", " \t", "")] == ["a", "line break", "space, tab", "nothing"]
    assert [format_bits(value) for value in (0.0, 0.0004, 0.25)] == ["0", "<0.001", "0.250"]
