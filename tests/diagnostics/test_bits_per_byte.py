"""Bits per byte: by hand, against a loop over tokens and an enumeration of covers, windows of long texts, chunks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from foreign import foreign_model, sentencepiece_tokenizer
from logitkit.diagnostics import BitsPerByte, ModelBits, bits_per_byte, chunk_divergence
from logitkit.diagnostics.text_windows import blocks_of, text_windows
from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model
from reference.byte_covers import Enumeration, random_model, random_tokenizer

TOKENIZERS = {"bytes": tiny_tokenizer, "words": foreign_tokenizer, "pieces": sentencepiece_tokenizer}


def one_merge_tokenizer() -> Any:
    """Return a tokenizer of the tokens ``a``, ``b`` and ``ab``."""
    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def uniform_model(tokenizer: Any) -> Any:
    """Return a model that gives the same probability to each of its ids, 13 for the tokenizer of one merge."""
    model = random_model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def test_worked_example() -> None:
    """By hand: ``aba`` is written ``ab a``, 1/13 each; the last byte begins ``a`` and ``ab``, so 2/13 over bytes."""
    tokenizer = one_merge_tokenizer()
    found = bits_per_byte({"uniform": (uniform_model(tokenizer), tokenizer)}, "aba")
    assert (found.blocks, found.chunks, found.models["uniform"].tokens) == ([3], [2, 1], 2)
    assert found.models["uniform"].chunks == pytest.approx([math.log2(13)] * 2)
    assert found.of("uniform") == pytest.approx(2 * math.log2(13) / 3)
    assert found.of("uniform", exact=True) == pytest.approx((math.log2(13) + math.log2(13 / 2)) / 3)
    assert found.differences("uniform", "uniform", exact=True) == [0.0]


def own_bits(model: Any, tokenizer: Any, text: str) -> list[tuple[int, float]]:
    """Return for each token the byte behind it and its bits, one forward in double precision for each token."""
    whole = copy.deepcopy(model).double()
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    found, place = [], 0
    for number in range(1, len(ids)):
        p = whole(torch.tensor([ids[:number]])).logits[0, -1].softmax(-1).tolist()
        place += len(tokenizer.decode(ids[number]).encode())
        found.append((place, -math.log2(p[ids[number]])))
    return found


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=1, max_size=5))
def test_equals_a_loop_and_an_enumeration(seed: int, text: str) -> None:
    """Tokens as a loop over prefixes, bytes as an enumeration of covers; the bytes never cost more."""
    tokenizers = random_tokenizer(seed), random_tokenizer(seed + 1)
    pair = {str(number): (random_model(each, seed).double(), each) for number, each in enumerate(tokenizers)}
    found = bits_per_byte(pair, text)
    assert found.windows == 1 and found.blocks == [len(text)] == [sum(found.chunks)]
    for name, (model, tokenizer) in pair.items():
        tokens, exact = (found.of(name, exact=which) * len(text) for which in (False, True))
        assert tokens == pytest.approx(sum(bits for _, bits in own_bits(model, tokenizer, text)), abs=1e-4)
        assert exact == pytest.approx(-Enumeration(model, tokenizer).logp(text.encode()) / math.log(2), abs=1e-4)
        assert exact <= tokens + 1e-4


def test_windows_equal_a_loop_and_an_enumeration() -> None:
    """A later window costs what its bytes cost behind its context, block by block."""
    tokenizers = random_tokenizer(3), random_tokenizer(4)
    pair = {str(number): (random_model(each, number).double(), each) for number, each in enumerate(tokenizers)}
    text = "ab ba a bab b aab ba ab a"
    found = bits_per_byte(pair, text, block=4, window=16, context=4)
    windows = text_windows(text, dict(enumerate(tokenizers)), size=16, context=4)  # type: ignore[arg-type]
    assert found.windows == len(windows) > 1 and sum(found.blocks) == len(text) and found.window == 16
    for name, (model, tokenizer) in pair.items():
        slow = Enumeration(model, tokenizer)
        tokens, exact = [], []
        for each, lengths in zip(windows, _split(found.blocks, windows), strict=True):
            scored = own_bits(model, tokenizer, text[each.begin : each.begin + 16])
            place = each.start
            for length in lengths:
                tokens.append(sum(bits for end, bits in scored if place < each.begin + end <= place + length))
                parts = (text[each.begin : end].encode() for end in (place, place + length))
                before, after = (slow.logp(part) for part in parts)
                exact.append((before - after) / math.log(2))
                place += length
            assert place == each.end
        assert found.models[name].blocks == pytest.approx(tokens, abs=1e-4)
        assert found.models[name].exact == pytest.approx(exact, abs=1e-4)


def _split(blocks: list[int], windows: list[Any]) -> list[list[int]]:
    """Return the blocks of each window."""
    rest, found = list(blocks), []
    for each in windows:
        own = []
        while sum(own) < each.end - each.start:
            own.append(rest.pop(0))
        found.append(own)
    return found


@settings(max_examples=40, deadline=None)
@given(text=st.text("the aon é日\n", min_size=1, max_size=80), size=st.integers(16, 40), context=st.integers(1, 8))
def test_windows_cover_a_text(text: str, size: int, context: int) -> None:
    """Each byte is scored once, windows start at a chunk of the one before, and chunks end where all tokens end."""
    tokenizers = {name: make() for name, make in TOKENIZERS.items()}
    windows = text_windows(text, tokenizers, size=size, context=context)
    assert [each.start for each in windows] == [0, *(each.end for each in windows[:-1])]
    assert windows[-1].end == len(text.encode())
    for each in windows:
        assert each.chunks[0] == each.start and each.chunks[-1] == each.end and sorted(each.chunks) == each.chunks
        assert each.begin == 0 or each.start - each.begin >= context
        for encoding in each.encodings.values():
            assert set(each.chunks[1:]) <= set(encoding.ends) and max(encoding.ends) <= each.begin + size
            assert each.start in encoding.ends or each.start == 0
        counts = blocks_of(each.lengths, 5)
        assert sum(counts) == len(each.lengths) and all(counts)


def test_a_space_before_the_text_and_special_tokens_in_it() -> None:
    """The space that SentencePiece writes counts in both quantities; ``</s>`` in a text is text."""
    tokenizer, model = sentencepiece_tokenizer(), foreign_model()
    text = "the </s> é"
    found = bits_per_byte({"pieces": (model, tokenizer)}, text)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    logp = model(torch.tensor([[1, *ids]])).logits[0, :-1].double().log_softmax(-1)
    want = -float(logp[torch.arange(len(ids)), ids].sum().detach()) / math.log(2)
    assert found.of("pieces") * len(text.encode()) == pytest.approx(want)
    assert found.models["pieces"].tokens == len(ids) and sum(found.chunks) == len(text.encode())
    assert found.of("pieces", exact=True) <= found.of("pieces") + 1e-6


def test_models_of_one_tokenizer_share_its_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each has a tokenizer of its own in memory; equal models have equal bits, and the blocks are paired."""
    copied = copy.deepcopy(tiny_tokenizer())
    asked: list[Any] = []
    monkeypatch.setattr("logitkit.diagnostics.text_windows.token_ends", lambda *args: asked.append(1) or [1, 2])
    found = bits_per_byte({"a": (tiny_model(), tiny_tokenizer()), "b": (tiny_model(), copied)}, "ab", exact=False)
    assert len(asked) == 1 and found.models["a"].chunks == found.models["b"].chunks
    assert found.differences("b", "a") == [0.0] and found.models["a"].exact is None
    with pytest.raises(UnknownNameError, match="no model named"):
        found.of("another")
    with pytest.raises(ParameterError, match="exact must be False where only tokens were scored, got True"):
        found.of("a", exact=True)


@given(p=st.floats(0, 50), q=st.floats(0, 50))
def test_divergence_of_chunks(p: float, q: float) -> None:
    """It is that of two coins: not negative, 0 between equals, a mean over chunks."""
    assert chunk_divergence([p], [q]) >= -1e-12 and chunk_divergence([p, q], [p, q]) == 0
    assert chunk_divergence([p, 1.0], [q, 1.0]) == pytest.approx(chunk_divergence([p], [q]) / 2)
    assert chunk_divergence([1.0], [0.0]) == math.inf and chunk_divergence([0.0], [1.0]) == 1.0


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"models": {}}, "models must be a mapping of one name or more"),
        ({"models": [1]}, "models must be a mapping of one name or more"),
        ({"models": {"tiny": tiny_model()}}, "models must be a mapping of one name or more"),
        ({"text": 5}, "text must be a text of valid Unicode"),
        ({"text": ""}, "text must be a text of valid Unicode with a character, got ''"),
        ({"text": "\ud800"}, "valid Unicode"),
        ({"block": 0}, "block must be a whole number of bytes >= 1, got 0"),
        ({"block": 1.5}, "block must be a whole number of bytes >= 1, got 1.5"),
        ({"block": True}, "block must be a whole number"),
        ({"window": 8}, "window must be a whole number of bytes >= 16, got 8"),
        ({"window": 20, "context": 20}, "less than the window of 20"),
        ({"context": 0}, "context must be at least 1 byte"),
    ],
)
def test_what_cannot_be_measured_is_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        bits_per_byte(**({"models": {"tiny": (tiny_model(), tiny_tokenizer())}, "text": "ab"} | given_))


def test_models_that_cannot_be_compared_are_refused() -> None:
    """By name: an encoder, a tokenizer that loses text or has no begin token, a window beyond the context."""
    bare = copy.deepcopy(tiny_tokenizer())
    bare.bos_token = bare.eos_token = None
    short = copy.deepcopy(tiny_model())
    short.config.max_position_embeddings = 30
    lossy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")), bos_token="a"
    )
    for model, tokenizer, message in (
        (encoder_decoder_model(), tiny_tokenizer(), "x must be decoder-only"),
        (tiny_model(), bare, "x: tokenizer must have a begin or an end token, got none"),
        (tiny_model(), lossy, "x: the tokenizer must keep every byte of the text"),
    ):
        with pytest.raises(ModelError, match=message):
            bits_per_byte({"x": (model, tokenizer)}, "ab")
    with pytest.raises(ModelError, match="must fit the context of x, 30 tokens, got 40 tokens"):
        bits_per_byte({"x": (short, tiny_tokenizer())}, "ab" * 20, window=64)
    assert bits_per_byte({"x": (short, tiny_tokenizer())}, "ab" * 20, exact=False).window == 22


def test_a_text_whose_tokens_never_end_together_is_refused() -> None:
    """A window that is one token has no place for a cut."""
    names = ["a" * 2**power for power in range(5)]
    inner = Tokenizer(
        models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[(n, n) for n in names[:-1]])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    with pytest.raises(ModelError, match="a place in bytes 0 to 16 at which tokens of all models end, got none"):
        text_windows("a" * 40, {"a": tokenizer}, size=16, context=4)


def test_bits_of_a_result() -> None:
    found = BitsPerByte(1, 16, [1, 3], [4], {"a": ModelBits(2, [2.0, 4.0], [6.0], [5.0])})
    assert (found.of("a"), found.of("a", exact=True)) == (1.5, 1.25)
