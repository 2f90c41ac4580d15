"""The bytes of every token: worked examples, and joined bytes of texts on real tokenizers."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from foreign import foreign_model, foreign_tokenizer
from logitkit.errors import ModelError
from logitkit.processors.byte_level import ByteTree
from logitkit.processors.tokens import Vocabulary, fingerprint, vocabulary_of
from logitkit.processors.tokens.vocabulary import fingerprints
from logitkit.registry.laws import tiny_tokenizer
from reference.byte_covers import random_model

REAL = ("gpt2", "gpt-neox-20b", "mistral_nemo", "mistral_v1", "qwen2_5", "yi")
TEXTS = [
    "Hello world, it's 12345 o'clock.\n\n  def f(x):\n\treturn x  \n",
    "日本語 emoji 🎉👩‍👩‍👧 naïve é",
    " leading  and trailing ",
    "a\r\n\r\nb     c\u00a0d",
]


def test_a_byte_level_vocabulary() -> None:
    """Special tokens and padding have no bytes; every byte has one token."""
    vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
    assert vocabulary.style == "byte-level" and vocabulary.prefix == b"" and vocabulary.loss_reason == ""
    assert sorted(text for text in vocabulary.token_bytes if text is not None) == [bytes([i]) for i in range(256)]
    assert vocabulary.special == {256, 257, 258} and vocabulary.token_bytes[256:] == (None,) * 16
    assert vocabulary.ids_of[b"a"] == (tiny_tokenizer().convert_tokens_to_ids("a"),)


def sentencepiece() -> PreTrainedTokenizerFast:
    """Three pieces and two byte tokens, one of them a duplicate."""
    pieces = {"▁": 0, "a": 1, "▁a": 2, "<0x61>": 3, "<0x0A>": 4, "</s>": 5}
    inner = Tokenizer(models.BPE(vocab=pieces, merges=[("▁", "a")], byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def test_a_sentencepiece_vocabulary() -> None:
    """In SentencePiece, the marker stands for a space, a byte token for its byte; duplicates are all found."""
    vocabulary = Vocabulary.of(sentencepiece())
    assert vocabulary.token_bytes == (b" ", b"a", b" a", b"a", b"\n", None)
    assert vocabulary.style == "sentencepiece" and vocabulary.prefix == b" "
    assert vocabulary.ids_of[b"a"] == (1, 3)


def test_the_reason_why_bytes_are_lost() -> None:
    """A tokenizer that lowers case or drops white space names the step that loses bytes."""
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
    """Fewer ids than the tokenizer has are refused."""
    with pytest.raises(ModelError, match="size must be at least the tokenizer's 259 ids, got 3"):
        Vocabulary.of(tiny_tokenizer(), 3)


def test_the_vocabulary_of_a_model_has_an_entry_for_each_logit() -> None:
    """Ids beyond the tokenizer's are padding; tokens beyond the model's ids are left out."""
    assert len(vocabulary_of(foreign_model(), foreign_tokenizer())) == 320
    narrow = copy.deepcopy(foreign_model())
    narrow.config.vocab_size = 260
    vocabulary = vocabulary_of(narrow, foreign_tokenizer())
    assert len(vocabulary) == 260 and b"the" not in vocabulary.ids_of and b"a" in vocabulary.ids_of


def test_fingerprints_identify_tokenizers() -> None:
    """Equal tokenizers have equal fingerprints; another tokenizer or an added token changes the fingerprint."""
    tokenizer = sentencepiece()
    first = fingerprint(tokenizer)
    assert first == fingerprint(sentencepiece()) != fingerprint(tiny_tokenizer()) and len(first) == 16
    other = sentencepiece()
    other.add_tokens(["new"])
    assert fingerprint(other) != first


def test_texts_that_are_lost_are_named() -> None:
    """A literal marker becomes a space in SentencePiece's format, and NFC composes; the vocabulary names both."""
    tokenizer = sentencepiece()
    vocabulary = Vocabulary.of(tokenizer)
    spelled = vocabulary.join(tokenizer("a▁a", add_special_tokens=False)["input_ids"])
    assert spelled == vocabulary.prefix + b"a a" and vocabulary.loss_reason == ""
    assert vocabulary.loses == ("the character ▁ (U+2581), which stands for a space",)
    assert Vocabulary.of(tiny_tokenizer()).loses == ()
    inner = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    inner.normalizer = normalizers.NFC()
    assert "NFC" in Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=inner)).loses[0]


@pytest.mark.parametrize("cut", [False, True])
def test_a_special_token_that_merges_produce(cut: bool) -> None:
    """InternLM2's merges write the text "<s>" as its begin token: refused by name, unless the pretokenizer cuts it."""
    known = {token: number for number, token in enumerate(["<", "s", ">", "<s", "<s>"])}
    inner = Tokenizer(models.BPE(vocab=known, merges=[("<", "s"), ("<s", ">")]))
    if cut:
        inner.pre_tokenizer = pre_tokenizers.Punctuation()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    reason = Vocabulary.of(tokenizer).loss_reason
    assert reason == ("" if cut else "its model writes the text '<s>' as the special token of that name")
    if not cut:
        with pytest.raises(
            ModelError, match="writes the text '<s>' as the special token of that name; pass lossy=True"
        ):
            ByteTree(random_model(tokenizer), tokenizer)


def test_a_special_piece_of_a_unigram_model() -> None:
    """A unigram model with "<s>" among its pieces writes the text "<s>" so; its unknown token is only named."""
    inner = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("a", -1.0), ("<", -1.0)], unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")
    vocabulary = Vocabulary.of(tokenizer)
    assert "'<s>'" in vocabulary.loss_reason
    assert [text.split()[2] for text in vocabulary.loses] == ["<s>,", "<unk>,"]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_joined_bytes_are_the_text(shared_tokenizers: Path, name: str) -> None:
    """The joined bytes of a text's tokens are the text, on prose, code, emoji, CJK and unusual white space."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared_tokenizers / name)
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.loss_reason == ""
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert vocabulary.join(ids) == vocabulary.prefix + text.encode()


@given(st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=40))
def test_any_text_on_bytes(text: str) -> None:
    """The joined bytes of any text's tokens are the text, if it contains no special token."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert Vocabulary.of(tokenizer).join(ids) == text.encode()


def test_fingerprints_hash_the_parts_of_the_tokenizer() -> None:
    """Before each added token, of which a tokenizer may have thousands; the text of the vocabulary is hashed once."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens([f"<{number}>" for number in range(3000)])
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    parts, added = [data[part] for part in ("model", "normalizer", "pre_tokenizer")], data["added_tokens"]
    got = fingerprints(tokenizer)
    assert len(got) == len(added) + 1 > 3000
    for count in (0, 1, 2, 1000, len(added)):
        text = json.dumps([*parts, added[:count]], sort_keys=True)
        assert got[len(added) - count] == hashlib.sha256(text.encode()).hexdigest()[:16]
