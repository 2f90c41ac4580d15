"""The text of a row: characters of several tokens, stop strings, log-probabilities, and beginning again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.registry.chain import Chain
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
from logitkit.serving.row import Prompt, Row, TokenScore
from logitkit.serving.speller import speller_of
from logitkit.serving.stop_texts import first_stop, withheld


def row_of(**settings: Any) -> Row:
    """Return a row that has begun."""
    defaults: dict[str, Any] = {"seed": 0, "temperature": 0.0, "top_p": 1.0, "new_tokens": 99, "streams": True}
    row = Row(prompt=Prompt(value="", kind="text"), chain=Chain(), **{**defaults, **settings})
    row.begin(tiny_tokenizer(), b"")
    return row


def written(row: Row, text: str, *, ends: bool = False) -> list[str]:
    """Add the tokens of a text, and return what could be read after each."""
    read = []
    for token in tiny_tokenizer()(text)["input_ids"]:
        if not row.done:
            row.add(token, TokenScore(token, -1.0, ()), ends=False)
            read.append("".join(piece.text for piece in row.read()[0]))
    if ends:
        row.add(tiny_tokenizer().eos_token_id, TokenScore(0, 0.0, ()), ends=True)
        read.append("".join(piece.text for piece in row.read()[0]))
    return read


@given(st.binary(max_size=12), st.integers(0, 3))
def test_the_pieces_are_the_text(content: bytes, cut: int) -> None:
    """Whatever the bytes, for a plain continuation and for one behind removed bytes: joined, the bytes decoded."""
    letters = {bytes([number]): token for token, number in _bytes_of_tokens().items()}
    tokens = [letters[bytes([byte])] for byte in content]
    cut = min(cut, len(content))
    for removed in {b"", content[:cut]}:
        speller = speller_of(tiny_tokenizer(), removed)
        pieces = [speller.add(token) for token in tokens] + [speller.end()]
        assert "".join(pieces) == content[len(removed) :].decode(errors="replace"), removed
        assert speller.end() == ""


def _bytes_of_tokens() -> dict[int, int]:
    """Return the byte of each token of one byte."""
    known = Vocabulary.of(tiny_tokenizer()).token_bytes
    return {token: written[0] for token, written in enumerate(known) if written}


@given(st.text(alphabet="the ronaé", max_size=20))
def test_tokens_of_several_letters(text: str) -> None:
    """The same with merges."""
    speller = speller_of(foreign_tokenizer(), b"")
    pieces = [speller.add(token) for token in foreign_tokenizer()(text, add_special_tokens=False)["input_ids"]]
    assert "".join([*pieces, speller.end()]) == text


def test_a_character_comes_whole() -> None:
    """By hand: é has two bytes, and its first alone is no text."""
    assert written(row_of(), "né!") == ["n", "", "é", "!"]


def test_a_stop_string_stays_behind() -> None:
    """By hand: E and EN may begin END; in ENE the first two can be sent, and the last E may begin another."""
    row = row_of(stops=("END",))
    assert written(row, "aENENDb") == ["a", "", "", "EN", "", ""]
    assert row.finish_reason == "stop" and row.tokens == 6


def test_what_only_looked_like_a_stop_string_is_sent_at_the_end() -> None:
    """At the last token, and at an end token, which is no part of the text."""
    row = row_of(stops=("END",), new_tokens=3)
    assert written(row, "aEN") == ["a", "", "EN"] and row.finish_reason == "length"
    row = row_of(stops=("END",))
    assert written(row, "aEN", ends=True) == ["a", "", "", "EN"] and row.finish_reason == "stop" and row.tokens == 4


@given(st.text(alphabet="ab", max_size=12), st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=3))
def test_stop_strings_by_the_obvious_way(text: str, stops: list[str]) -> None:
    """What is read is the text before the first stop string that is complete, and no part of it was read before."""
    row = row_of(stops=tuple(stops), new_tokens=max(1, len(text)))
    read = "".join(written(row, text))
    shortest = next((text[:end] for end in range(len(text) + 1) if any(stop in text[:end] for stop in stops)), None)
    expected = text if shortest is None else shortest[: min(shortest.find(s) for s in stops if s in shortest)]
    assert read == expected and (not text or row.done == (shortest is not None or len(text) == row.tokens))


@given(st.text(alphabet="ab", max_size=8), st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=3))
def test_what_is_withheld(text: str, stops: list[str]) -> None:
    """The longest end of a text without stop strings that is the beginning of one."""
    assert first_stop(text, stops) == min((text.find(s) for s in stops if s in text), default=None)
    assume(first_stop(text, stops) is None)
    ends = [size for size in range(len(text) + 1) if any(text[len(text) - size :] == s[:size] != s for s in stops)]
    assert withheld(text, stops) == max(ends, default=0)


def test_log_probabilities_come_with_their_text() -> None:
    """Those of the tokens before a stop string, with the place of each; the end token has none."""
    row = row_of(stops=("END",))
    for token in tiny_tokenizer()("aéEND")["input_ids"]:
        row.add(token, TokenScore(token, -1.0, ()), ends=False)
    pieces, done = row.read()
    assert done and [score.place for piece in pieces for score in piece.scores] == [0, 1, 1]
    row = row_of()
    written(row, "ab", ends=True)
    assert row.tokens == 3


def test_a_row_begins_again() -> None:
    """What was read is not repeated, and a text that differs from it is an error."""
    row = row_of()
    assert written(row, "abc") == ["a", "b", "c"]
    row.begin(tiny_tokenizer(), b"")
    assert written(row, "abcd") == ["", "", "", "d"] and row.tokens == 4
    assert sum(len(piece.scores) for piece in row.read()[0]) == 0
    row.begin(tiny_tokenizer(), b"")
    written(row, "ax")
    assert isinstance(row.error, RuntimeError) and row.done


@pytest.mark.parametrize("streams", [True, False])
def test_when_a_row_calls(streams: bool) -> None:
    """At each piece of a stream, else at the end alone."""
    calls: list[int] = []
    row = row_of(streams=streams, new_tokens=3, notify=lambda: calls.append(1))
    written(row, "abc")
    assert len(calls) == (3 if streams else 1)
