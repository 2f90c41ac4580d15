"""Retokenization: worked examples, and equality of bytes on real tokenizers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from foreign import foreign_tokenizer, sentencepiece_tokenizer
from logitkit.errors import ModelError
from logitkit.processors.tokens import Retokenizer, Vocabulary
from logitkit.registry.laws import tiny_tokenizer

REAL = ("gpt2", "gpt-neox-20b", "mistral_nemo", "mistral_v1", "qwen2_5", "yi")


def between(source: Any, target: Any) -> Retokenizer:
    """The retokenizer from one tokenizer to another."""
    return Retokenizer(Vocabulary.of(source), target, Vocabulary.of(target))


def tokens_of(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the tokens of ids as strings."""
    return tokenizer.convert_ids_to_tokens(ids)


def test_worked_example() -> None:
    """A third byte changes the tokens of the first two; special tokens are left out."""
    tiny, foreign = tiny_tokenizer(), foreign_tokenizer()
    retokenize = between(tiny, foreign)
    ids = tiny("the")["input_ids"]
    assert [tokens_of(foreign, tokens) for tokens in retokenize([ids[:1], ids[:2], ids, [257, *ids, 258]])] == [
        ["t"],
        ["th"],
        ["the"],
        ["the"],
    ]


def test_half_a_character_becomes_a_byte_token() -> None:
    """The first byte of "é" alone becomes a byte token; so does a byte that is no UTF-8."""
    tiny, foreign = tiny_tokenizer(), foreign_tokenizer()
    retokenize = between(tiny, foreign)
    assert tokens_of(foreign, retokenize.of_bytes([b"a\xc3"])[0]) == ["a", "Ã"]
    assert tokens_of(foreign, retokenize.of_bytes([b"a\xc3\xa9"])[0]) == ["a", "Ã©"]
    assert tokens_of(foreign, retokenize.of_bytes([b"a\xffthe"])[0]) == ["a", "ÿ", "the"]
    pieces = sentencepiece_tokenizer()
    assert tokens_of(pieces, between(tiny, pieces).of_bytes([b"a\xc3"])[0]) == ["a", "<0xC3>"]


def test_no_dummy_space_before_a_continuation() -> None:
    """No space is put before a continuation, although SentencePiece puts one before every text."""
    pieces = sentencepiece_tokenizer()
    retokenize = between(tiny_tokenizer(), pieces)
    assert tokens_of(pieces, pieces("the", add_special_tokens=False)["input_ids"]) == ["▁the"]
    assert [tokens_of(pieces, tokens) for tokens in retokenize.of_bytes([b"the", b" the"])] == [["the"], ["▁the"]]


def test_the_spelling_of_a_special_token_is_text() -> None:
    """The text "<end>" is encoded as text and not as the end token."""
    foreign = foreign_tokenizer()
    (tokens,) = between(tiny_tokenizer(), foreign).of_bytes([b"<end>"])
    assert foreign.eos_token_id not in tokens and foreign.decode(tokens) == "<end>"


@given(st.lists(st.binary(max_size=24), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_bytes_survive(texts: list[bytes]) -> None:
    """The tokens of any bytes, valid UTF-8 or not, have these bytes; texts do not influence each other."""
    for target in (foreign_tokenizer(), sentencepiece_tokenizer()):
        retokenize, vocabulary = between(tiny_tokenizer(), target), Vocabulary.of(target)
        rows = retokenize.of_bytes(texts)
        assert [vocabulary.join(row) for row in rows] == texts
        assert rows == [between(tiny_tokenizer(), target).of_bytes([text])[0] for text in texts]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_bytes_survive_on_real_tokenizers(name: str, shared_tokenizers: Path, shared_data: Path) -> None:
    """The tokens of prose and code, cut at any byte, have these bytes; a word in the vocabulary is one token."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(shared_tokenizers / name / "tokenizer.json"))
    vocabulary = Vocabulary.of(tokenizer)
    retokenize = Retokenizer(vocabulary, tokenizer, vocabulary)
    text = (shared_data / "pg996_don_quixote.txt").read_bytes()[
        5000:7000
    ] + "\n\tfor é in ['日本', '🎉']:\r\n ".encode()
    cuts = [text[start : start + length] for start in range(0, 2000, 97) for length in (1, 40, 203)]
    assert [vocabulary.join(row) for row in retokenize.of_bytes(cuts)] == cuts
    assert len(retokenize.of_bytes([b" the"])[0]) == 1


def test_a_tokenizer_that_cannot_continue_a_text_is_refused() -> None:
    """WordPiece is refused, since it starts every text with a space."""
    inner = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="must be able to encode 'a' without a space"):
        between(tiny_tokenizer(), PreTrainedTokenizerFast(tokenizer_object=inner))


def test_the_tokenizer_is_left_as_it_was() -> None:
    """Padding and truncation of the tokenizer do not affect the result, and stay set."""
    tokenizer = copy.deepcopy(foreign_tokenizer())
    retokenize, vocabulary = between(tiny_tokenizer(), tokenizer), Vocabulary.of(tokenizer)
    inner = tokenizer.backend_tokenizer
    inner.enable_padding(length=40)
    inner.enable_truncation(4)
    before = inner.padding, inner.truncation, inner.encode_special_tokens
    (tokens,) = retokenize.of_bytes([b"the on an in er"])
    assert (inner.padding, inner.truncation, inner.encode_special_tokens) == before and None not in before
    assert vocabulary.join(tokens) == b"the on an in er"


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_pieces_are_the_whole_on_real_tokenizers(
    name: str, shared_tokenizers: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A growing text gets the tokens of the whole text, although only its end is encoded again."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(shared_tokenizers / name / "tokenizer.json"))
    vocabulary = Vocabulary.of(tokenizer)
    pieces, whole = (Retokenizer(vocabulary, tokenizer, vocabulary) for _ in range(2))
    assert pieces.cuts
    whole.cuts = False
    for book in ("pg996_don_quixote.txt", "1661-0.txt"):
        text = (shared_data / book).read_bytes()[40_000:60_000].replace(b"\r", b"")
        for end in range(2500, 20_000, 2503):
            assert pieces.of_bytes([text[:end]]) == whole.of_bytes([text[:end]])
    encoded: list[str] = []
    monkeypatch.setattr(pieces, "_tokenize", lambda texts: encoded.extend(texts) or [[0]] * len(texts))
    pieces.of_bytes([text[: end + 1]])
    assert sum(map(len, encoded)) < 400


def test_a_vocabulary_that_spans_words_is_encoded_whole() -> None:
    """Texts are not cut if the target has a token such as "a b", which spans a possible cut."""
    inner = Tokenizer(models.BPE(vocab={"a": 0, "Ġ": 1, "b": 2, "Ġb": 3, "aĠb": 4}, merges=[("Ġ", "b"), ("a", "Ġb")]))
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert not Retokenizer(Vocabulary.of(tokenizer), tokenizer, Vocabulary.of(tokenizer)).cuts
