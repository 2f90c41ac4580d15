"""The byte tokenizer, and texts of any bytes as rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
