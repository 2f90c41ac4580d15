"""Tokens sorted by their bytes, by hand."""

from __future__ import annotations

from logitkit.processors.tokens import Vocabulary
from logitkit.processors.tokens.byte_trie import END, ByteTrie


def trie_of(*token_bytes: bytes | None) -> ByteTrie:
    """The trie of a vocabulary with these bytes."""
    return ByteTrie(
        Vocabulary(token_bytes=token_bytes, special=frozenset(), added=frozenset(), style="plain", prefix=b"")
    )


def test_ranges_exact_tokens_and_next_bytes() -> None:
    """The tokens with a prefix form a range; tokens without bytes are left out, and duplicates are kept."""
    trie = trie_of(b"b", b"ab", None, b"a", b"a", b"\xff\xff", b"")
    assert trie.ids.tolist() == [3, 4, 1, 0, 5] and trie.longest == 2
    assert trie.range(b"a") == (0, 3) and trie.range(b"") == (0, 5) and trie.range(b"\xff") == (4, 5)
    assert trie.range(b"c") == (4, 4)
    assert trie.exact(b"a").tolist() == [3, 4] and trie.exact(b"ac").tolist() == []
    assert trie.next_byte(0, 3, 1).tolist() == [END, END, ord("b")]


def test_an_empty_vocabulary() -> None:
    """A vocabulary without bytes has an empty range for every prefix."""
    trie = trie_of(None)
    assert trie.longest == 0 and trie.range(b"") == (0, 0) and trie.exact(b"a").tolist() == []
