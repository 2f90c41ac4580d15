"""The search for phrases equals a search of the whole text, however the text is divided into tokens."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logitkit.processors.samplers.phrases import PhraseAutomaton, PhraseIndex, Place
from logitkit.processors.tokens import Vocabulary


def vocabulary(tokens: list[bytes | None]) -> Vocabulary:
    """A vocabulary of these tokens."""
    return Vocabulary(token_bytes=tuple(tokens), special=frozenset(), added=frozenset(), style="byte-level", prefix=b"")


def text_of(data: bytes, fold: bool) -> str:
    """The text of bytes whose last character may be unfinished; the unfinished one is left out."""
    for length in range(4):
        whole = data[: len(data) - length]
        try:
            whole.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                break
        else:
            break
    else:
        whole = data
    end = len(data)
    for length in range(1, 4):  # an unfinished character: a first byte with too few others behind it
        if length <= len(data) and data[-length] >= 0xC0:
            last = data[-length]
            needed = 2 if last < 0xE0 else 3 if last < 0xF0 else 4
            if last < 0xF8 and length < needed:
                end = len(data) - length
            break
        if length <= len(data) and data[-length] < 0x80:
            break
    text = data[:end].decode(errors="replace")
    return text.casefold() if fold else text


def completes(phrases: list[str], before: bytes, token: bytes, fold: bool) -> bool:
    """Whether a phrase ends in the characters that the token adds, by looking at every place of the text."""
    old, new = text_of(before, fold), text_of(before + token, fold)
    wanted = [phrase.casefold() if fold else phrase for phrase in phrases]
    return any(
        new.startswith(phrase, end - len(phrase))
        for phrase in wanted
        for end in range(len(old) + 1, len(new) + 1)
        if end >= len(phrase)
    )


def test_by_hand() -> None:
    """Before "cat" and "act" stands "ca": "t" completes one, "tact" both, "ot" none, "b cat" contains one."""
    tokens: list[bytes | None] = [b"t", b"tact", b"ot", b"b cat", None, b"", b"T"]
    index = PhraseIndex(PhraseAutomaton(["cat", "act"]), vocabulary(tokens))
    place, found = index.automaton.read(Place(), b"ca")
    assert not found and index.completing(place) == [0, 1, 3]
    assert index.completing(Place()) == [1, 3]
    folded = PhraseIndex(PhraseAutomaton(["cat", "act"], fold_case=True), vocabulary(tokens))
    assert folded.completing(folded.automaton.read(Place(), b"CA")[0]) == [0, 1, 3, 6]


def test_a_character_that_folds_to_two() -> None:
    """As in ``"strasse" in text.casefold()``: ß is ss, and a phrase may begin or end inside it."""
    tokens: list[bytes | None] = ["ße".encode(), b"SE", b"\x9f", "ß".encode()]
    index = PhraseIndex(PhraseAutomaton(["STRASSE", "as"], fold_case=True), vocabulary(tokens))
    place, _ = index.automaton.read(Place(), b"Stra")
    assert index.completing(place) == [0, 1, 3]  # "as" ends inside ß
    place, _ = index.automaton.read(place, b"\xc3")
    assert index.completing(place) == [2]


PIECES = ["a", "b", "A", "ß", "é", "€", "😀", "s", "İ"]
DATA = st.lists(
    st.sampled_from([*(piece.encode() for piece in PIECES), b"\xc3", b"\x9f", b"\xe2", b"\x82", b"\xf0", b"\xff"]),
    max_size=4,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(
    phrases=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join), min_size=1, max_size=3),
    row=st.lists(DATA, max_size=4),
    tokens=st.lists(DATA, min_size=1, max_size=6),
    fold=st.booleans(),
)
@example(phrases=["ab"], row=[b"a", b"a"], tokens=[b"b"], fold=False)
@example(phrases=["aab", "ab"], row=[b"aa"], tokens=[b"b", b"ab"], fold=False)
@example(phrases=["€"], row=[b"\xe2"], tokens=[b"\x82\xac", b"\x82", b"\xe2\x82\xac"], fold=True)
def test_equals_a_search_of_the_whole_text(
    phrases: list[str], row: list[bytes], tokens: list[bytes], fold: bool
) -> None:
    """For any phrases and any division into tokens, also inside characters."""
    index = PhraseIndex(PhraseAutomaton(phrases, fold_case=fold), vocabulary(list(tokens)))
    place = Place()
    for count, data in enumerate(row):
        place, found = index.automaton.read(place, data)
        assert found == completes(phrases, b"".join(row[:count]), data, fold)
    before = b"".join(row)
    want = [number for number, token in enumerate(tokens) if completes(phrases, before, token, fold)]
    assert index.completing(place) == want


def test_bytes_of_the_prompt_are_spelled_first() -> None:
    """A phrase that ends in bytes cut from the prompt does not count; one that ends behind them does."""
    tokens: list[bytes | None] = [b"cat", b"ca", b"cats", b"catacat", b"dog"]
    index = PhraseIndex(PhraseAutomaton(["cat"]), vocabulary(tokens))
    assert index.completing_behind(Place(), b"cat") == [3]
    assert index.completing_behind(Place(), b"ca") == [0, 2, 3]


def test_many_phrases_take_little_time() -> None:
    """Three hundred phrases over 100,000 tokens; the index is built once and looks phrases up in sorted texts."""
    tokens: list[bytes | None] = [f"{number:x}".encode() for number in range(100_000)]
    phrases = [f"{number:x}{number:x}" for number in range(1000, 1300)]
    index = PhraseIndex(PhraseAutomaton(phrases), vocabulary(tokens))
    place, _ = index.automaton.read(Place(), b"3e83")
    assert b"e8" in {tokens[number] for number in index.completing(place)}
    assert index.completing(place) is index.completing(place)


def test_pickles() -> None:
    """A copy finds the same."""
    index = PhraseIndex(PhraseAutomaton(["cat"], fold_case=True), vocabulary([b"t", b"x"]))
    copy = pickle.loads(pickle.dumps(index))
    assert copy.completing(copy.automaton.read(Place(), b"CA")[0]) == [0]


@pytest.mark.parametrize("fold", [False, True])
def test_overlapping_phrases(fold: bool) -> None:
    """A phrase inside another one is found where it ends."""
    automaton = PhraseAutomaton(["she", "he", "hers"], fold_case=fold)
    place, founds = Place(), []
    for byte in b"ushers":
        place, found = automaton.read(place, bytes([byte]))
        founds.append(found)
    assert founds == [False, False, False, True, False, True]
