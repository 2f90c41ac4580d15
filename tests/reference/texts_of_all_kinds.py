"""Seeded texts that mix white space of all kinds, symbols, emoji, line ends, contractions and rare characters."""

from __future__ import annotations

import random
import unicodedata

# fmt: off
SPACES = (
    " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u3000", "\u1680", "\u200b", "\u2028", "\u0085", "\x0b", "\r",
    "\n\n", "\u202f",
)
SYMBOLS = (
    "//", "#", "✅", "→", "—", "…", "'s", "'ll", "'", '"', "(", ")", ".", "!", "😀", "👩‍👩‍👧", "🏳️‍🌈", "𝄞", "𐄀", "€",
    "½", "²", "\u0663", "𝟘", "1", "12", "1234", "'RE", "'ſ", "'T", "_", "-", "\x00", "\x7f", "\ufffd", "\ufeff", "𐎟",
    "𑁇", "🇩🇪", "<s>",
)
WORDS = (
    "Hello", "world", "ok", "fn", "I", "naïve", "日本語", "привет", "한국어", "ไทย", "x", "a", "ab", "עברית", "ǅ", "ß",
    "don", "HTML", "𝒜", "𐐀", "𠀀", "ᚁ", "def", "return", "the",
)
# fmt: on


def text_of_all_kinds(generator: random.Random) -> str:
    """Return a text of two to seven pieces in NFC."""
    pieces = []
    for _ in range(generator.randint(2, 7)):
        kind = generator.random()
        if kind < 0.92:
            pieces.append(generator.choice(SPACES if kind < 0.35 else SYMBOLS if kind < 0.6 else WORDS))
        else:
            low, high = generator.choice([(0x20, 0x3000), (0x20, 0xD800), (0xE000, 0x110000), (0x10000, 0x20000)])
            pieces.append(chr(generator.randrange(low, high)))
    return unicodedata.normalize("NFC", "".join(pieces))
