"""The bytes of every token: by hand, and joined back to texts on real tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ModelError
from logitkit.processors.tokens.token_bytes import byte_alphabet
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint
from logitkit.registry.laws import tiny_tokenizer

REAL = ("gpt2", "gpt-neox-20b", "mistral_nemo", "mistral_v1", "qwen2_5", "yi")
TEXTS = [
    "Hello world, it's 12345 o'clock.\n\n  def f(x):\n\treturn x  \n",
    "日本語 emoji 🎉👩‍👩‍👧 naïve é",
    " leading  and trailing ",
    "a\r\n\r\nb     c\u00a0d",
]


def test_the_byte_alphabet_by_hand() -> None:
    """A letter is itself, a space is Ġ, a newline Ċ; every byte has one character."""
    alphabet = byte_alphabet()
    assert (alphabet["a"], alphabet["Ġ"], alphabet["Ċ"]) == (97, 32, 10)
    assert sorted(alphabet.values()) == list(range(256))


def test_a_byte_level_vocabulary() -> None:
    """Special tokens and padding spell nothing."""
    vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
    assert vocabulary.style == "byte-level" and vocabulary.prefix == b"" and vocabulary.loss_reason == ""
    assert sorted(spelled for spelled in vocabulary.token_bytes if spelled is not None) == [
        bytes([i]) for i in range(256)
    ]
    assert vocabulary.special == {256, 257, 258} and vocabulary.token_bytes[256:] == (None,) * 16
    assert vocabulary.ids_of[b"a"] == (tiny_tokenizer().convert_tokens_to_ids("a"),)


def sentencepiece() -> PreTrainedTokenizerFast:
    """Three pieces and two byte tokens, one of them a duplicate."""
    pieces = {"▁": 0, "a": 1, "▁a": 2, "<0x61>": 3, "<0x0A>": 4, "</s>": 5}
    inner = Tokenizer(models.BPE(vocab=pieces, merges=[("▁", "a")], byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def test_a_sentencepiece_vocabulary() -> None:
    """The marker is a space, byte tokens are bytes, duplicates are kept apart, a space comes first."""
    vocabulary = Vocabulary.of(sentencepiece())
    assert vocabulary.token_bytes == (b" ", b"a", b" a", b"a", b"\n", None)
    assert vocabulary.style == "sentencepiece" and vocabulary.prefix == b" "
    assert vocabulary.ids_of[b"a"] == (1, 3)


def test_what_loses_bytes_says_why() -> None:
    """Lowercasing and WordPiece."""
    inner = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    inner.normalizer = normalizers.Lowercase()
    assert "Lowercase" in Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=inner)).loss_reason
    inner = Tokenizer(models.WordPiece({"[UNK]": 0, "un": 1, "##able": 2}, unk_token="[UNK]"))
    vocabulary = Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert vocabulary.token_bytes == (b" [UNK]", b" un", b"able") and "white space" in vocabulary.loss_reason
    inner = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    for drops in (pre_tokenizers.Whitespace(), pre_tokenizers.Split(" ", "removed")):
        inner.pre_tokenizer = drops
        assert (
            "drops the text at which it cuts"
            in Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=inner)).loss_reason
        )
    inner.pre_tokenizer = pre_tokenizers.Split("a", "removed", invert=True)
    assert Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=inner)).loss_reason == ""


def test_fewer_ids_than_the_tokenizer() -> None:
    """One clear error."""
    with pytest.raises(ModelError, match="size must be at least the tokenizer's 259 ids, got 3"):
        Vocabulary.of(tiny_tokenizer(), 3)


def test_fingerprints_tell_tokenizers_apart() -> None:
    """And ignore padding, which is set by use."""
    tokenizer = sentencepiece()
    first = fingerprint(tokenizer)
    assert first == fingerprint(sentencepiece()) != fingerprint(tiny_tokenizer()) and len(first) == 16
    other = sentencepiece()
    other.add_tokens(["new"])
    assert fingerprint(other) != first


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_joined_bytes_are_the_text(shared_tokenizers: Path, name: str) -> None:
    """Prose, code, emoji, CJK and odd white space, on real tokenizers."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared_tokenizers / name)
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.loss_reason == ""
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert vocabulary.join(ids) == vocabulary.prefix + text.encode()


@given(st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=40))
def test_any_text_on_bytes(text: str) -> None:
    """Joining is decoding, as long as the text spells no special token."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert Vocabulary.of(tokenizer).join(ids) == text.encode()
