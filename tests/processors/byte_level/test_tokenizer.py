"""The byte tokenizer, and texts of any bytes as rows."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from logitkit.errors import ParameterError
from logitkit.processors.byte_level import byte_tokenizer, rows_of, texts_of


def test_the_byte_tokenizer() -> None:
    """Ids are bytes, no text encodes to 256, and bytes that are not UTF-8 decode to U+FFFD."""
    tokenizer = byte_tokenizer()
    text = "</s> tab\t naïve 日本 \x00\n  "
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode([0xC3, 97]) == "\N{REPLACEMENT CHARACTER}a"
    padded = tokenizer(["a", "abc"], padding=True, return_tensors="pt")
    assert padded["input_ids"].tolist() == [[256, 256, 97], [97, 98, 99]]
    assert {256} == {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4))
def test_rows_are_texts(texts: list[bytes]) -> None:
    """Texts of any bytes survive the way through rows and back, with and without the mask."""
    rows = rows_of(texts)
    for mask in (rows["attention_mask"], None):
        assert [text for (text,) in texts_of(rows["input_ids"], mask)] == texts


@pytest.mark.parametrize(
    "encode",
    [
        lambda tokenizer: tokenizer("a\ud800"),
        lambda tokenizer: tokenizer(["a", "\udfff"]),
        lambda tokenizer: tokenizer("a", "\ud800"),
        lambda tokenizer: tokenizer.encode("\ud800"),
        lambda tokenizer: tokenizer.tokenize("\ud800"),
    ],
)
def test_lone_surrogates_are_refused(encode: Any) -> None:
    """A surrogate without its partner has no bytes in UTF-8; a character beyond U+FFFF has four."""
    assert byte_tokenizer()("\U0001f600")["input_ids"] == [0xF0, 0x9F, 0x98, 0x80]
    with pytest.raises(ParameterError, match="byte_tokenizer: text must be text without lone surrogates"):
        encode(byte_tokenizer())


def test_a_saved_byte_tokenizer_loads(tmp_path: Path) -> None:
    """transformers loads the saved tokenizer as its own class; copies keep ours."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for other in (AutoTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert other("né")["input_ids"] == [110, 195, 169] and len(other) == 257


@pytest.mark.parametrize("texts", [["a"], b"ab", "ab", [bytearray(b"a")]])
def test_rows_are_of_bytes(texts: Any) -> None:
    """Text that is not encoded, or one text in place of a list of texts, is refused."""
    with pytest.raises(ParameterError, match=r"rows_of: text must be bytes, got .*; pass"):
        rows_of(texts)
