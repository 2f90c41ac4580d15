"""A reader with another tokenizer equals retokenizing and reading every row from scratch, in every mode."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList

from fakes import encoder_decoder_model
from foreign import RecomputeForeign, foreign_model, foreign_tokenizer, sentencepiece_tokenizer
from logitkit.errors import ModelError
from logitkit.processors.engine import Binding, read_prompts
from logitkit.processors.tokens import Retokenizer, Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "the three"]
OWN = ["another prompt, the long one", "own", "the"]
KINDS = ["rotary", "absolute", "sliding"]
TOKENIZERS = {"byte-level": foreign_tokenizer, "sentencepiece": sentencepiece_tokenizer}
WORDS = ["the", " the", "ro", "on", "l", "o", "\xe9", "x", " ", "an", "in", "t", "h", "er\n"]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 4},
    "num_return_sequences": {"do_sample": True, "num_return_sequences": 3},
}


def streams(kind: str, style: str = "byte-level", texts: list[str] = PROMPTS, own: list[str] = OWN) -> Any:
    """Return the prompts, a reader under its own prompts, and the slow reference of that reader."""
    tiny, tokenizer, model = tiny_tokenizer(), TOKENIZERS[style](), foreign_model(kind)
    prompts = read_prompts(tiny, tiny_model(), texts)
    ids = [tokenizer(text)["input_ids"] for text in own]
    reader = Binding(tiny_model(), tiny, prompts).foreign_reader(ids, model, tokenizer)
    vocabulary = Vocabulary.of(tiny, 272)
    fresh = Retokenizer(vocabulary, tokenizer, Vocabulary.of(tokenizer))
    slow = RecomputeForeign(
        model,
        ids,
        prompts.ids,
        lambda text: fresh.of_bytes([text])[0],
        lambda token: vocabulary.token_bytes[token] or b"",
    )
    return prompts, reader, slow


class Mixed(LogitsProcessor):
    """Adds the logits of a second stream to the scores, and compares them with the slow reference."""

    def __init__(self, second: Any, slow: Any = None) -> None:
        self.second, self.slow, self.worst = second, slow, 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = self.second(input_ids)
        if self.slow is not None:
            self.worst = max(self.worst, float((logits - self.slow(input_ids)).abs().max()))
        return scores.log_softmax(-1) + logits[:, : scores.shape[1]].flip(1)


def run(prompts: Any, processor: Any, **mode: Any) -> torch.Tensor:
    torch.manual_seed(0)
    wanted = {"max_new_tokens": 14, "do_sample": False, "attention_mask": prompts.mask} | mode
    return tiny_model().generate(prompts.ids, logits_processor=LogitsProcessorList([processor]), **wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("style", TOKENIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_recomputation_in_every_mode(kind: str, style: str, mode: str) -> None:
    """Logits agree within 1e-4, and tokens are equal, for unequal prompts, beams, samples, several sequences."""
    prompts, reader, slow = streams(kind, style)
    probe = Mixed(reader, slow)
    got = run(prompts, probe, **MODES[mode])
    assert probe.worst < 1e-4
    assert torch.equal(got, run(prompts, Mixed(slow), **MODES[mode]))


@pytest.mark.parametrize("mode", ["assistant", "prompt_lookup"])
def test_equals_recomputation_under_assisted_decoding(mode: str) -> None:
    """Prefixes are repeated and shortened, and the tokens are the greedy ones."""
    prompts, reader, slow = streams("rotary", texts=["ababab the"], own=["own"])
    helper = {"assistant_model": tiny_model(1)} if mode == "assistant" else {"prompt_lookup_num_tokens": 3}
    probe = Mixed(reader, slow)
    got = run(prompts, probe, **helper)
    assert probe.worst < 1e-4
    assert torch.equal(got, run(prompts, Mixed(slow)))


def written(prompts: Any, texts: list[str], start: int = 0) -> torch.Tensor:
    """Return rows that continue the prompts with texts, one token a byte, padded with special tokens."""
    tails = [tiny_tokenizer()(text)["input_ids"] if text else [] for text in texts]
    width = max(map(len, tails))
    rows = [[*tail, *[257] * (width - len(tail))] for tail in tails]
    return torch.cat([prompts.ids[start : start + len(texts)], torch.tensor(rows, dtype=torch.long)], dim=1)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_of_any_prefixes(data: st.DataObject) -> None:
    """Random texts whose tokens merge across steps are extended, shortened, permuted and repeated."""
    kind, style = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(sorted(TOKENIZERS)))
    prompts, reader, slow = streams(kind, style)
    text = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)
    texts = data.draw(st.lists(text, min_size=3, max_size=3))
    for _ in range(data.draw(st.integers(1, 6))):
        length = data.draw(st.integers(0, 25))
        order = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
        rows = written(prompts, texts)[:, : prompts.width + length]
        torch.testing.assert_close(reader(rows[order]), slow(rows[order]), rtol=0, atol=1e-4)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_positions_are_read_in_one_chunk(data: st.DataObject) -> None:
    """Prefixes that end within a token are read beside the others, in one forward behind that of the prompts.

    Each prefix is then known, and drafts that are replaced are dropped.
    """
    kind, style = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(sorted(TOKENIZERS)))
    prompts, reader, slow = streams(kind, style)
    text = st.lists(st.sampled_from(WORDS), min_size=8, max_size=10).map("".join)
    for _ in range(data.draw(st.integers(1, 4))):
        rows = written(prompts, data.draw(st.lists(text, min_size=3, max_size=3)))
        count = data.draw(st.integers(1, 6))
        rows = rows[:, : prompts.width + data.draw(st.integers(count, 8))]
        before = reader.forwards
        got = reader.positions(rows, count)
        assert reader.forwards - before <= (2 if before == 0 else 1)
        read = reader.forwards
        for behind in data.draw(st.permutations(range(count))):
            prefix = rows[:, : rows.shape[1] - behind]
            torch.testing.assert_close(got[:, count - 1 - behind], slow(prefix), rtol=0, atol=1e-4)
            assert torch.equal(reader(prefix), got[:, count - 1 - behind])
        assert reader.forwards == read
        shorter = rows[:, : data.draw(st.integers(prompts.width, rows.shape[1]))]
        torch.testing.assert_close(reader(shorter), slow(shorter), rtol=0, atol=1e-4)


def test_plain_decoding_reads_no_prefix_twice() -> None:
    """For 50 bytes whose tokens merge and split, each step runs at most one forward and 1.5 tokens on average."""
    prompts, reader, slow = streams("rotary", texts=PROMPTS[:1], own=OWN[:1])
    rows = written(prompts, ["the then on an inn the the lo el hello the and on"])
    reader(rows[:, : prompts.width])
    prompt, first = reader.tokens, reader.forwards
    steps = rows.shape[1] - prompts.width
    for length in range(1, steps + 1):
        reader(rows[:, : prompts.width + length])
    assert reader.forwards - first <= steps and reader.tokens - prompt <= 1.5 * steps
    torch.testing.assert_close(reader(rows), slow(rows), rtol=0, atol=1e-4)


def test_unused_slots_are_removed() -> None:
    """Rows rewritten at different steps leave unused slots, and the cache stays near the length of its longest row."""
    prompts, reader, slow = streams("rotary")
    rows = written(prompts, ["the" * 60, "xthe" * 45, "thxe" * 45])
    for length in range(1, rows.shape[1] - prompts.width):
        reader(rows[:, : prompts.width + length])
    tails = reader.retokenize(rows[:, prompts.width : -1].tolist())
    longest = max(len(own) + len(tail) for own, tail in zip(reader.own, tails, strict=True))
    assert reader.cache_length <= 1.25 * longest + 33
    torch.testing.assert_close(reader(rows), slow(rows), rtol=0, atol=1e-4)


def test_special_tokens_need_no_forward() -> None:
    """Finished rows receive special tokens, which are no text: the logits stay the same without a forward."""
    prompts, reader, _ = streams("rotary")
    rows = written(prompts, ["the", "on", "an"])
    want = reader(rows)
    spent = reader.forwards
    padded = torch.cat([rows, torch.full((3, 2), 258)], dim=1)
    assert torch.equal(reader(padded), want) and reader.forwards == spent


def test_an_interrupted_forward_drops_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption the next call reads from scratch and is right."""
    prompts, reader, slow = streams("rotary")
    rows = written(prompts, ["the end", "on the", "andante"])
    reader(rows[:, :-1])

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader(rows)
    torch.testing.assert_close(reader(rows), slow(rows), rtol=0, atol=1e-4)


def test_rows_beyond_the_context_are_refused() -> None:
    """The error comes before any forward and names the limit, the length and the way out."""
    prompts, reader, _ = streams("rotary", texts=PROMPTS[:1], own=["x" * 250])
    with pytest.raises(ModelError, match="at most 256 tokens of this model, its context, got 260; generate fewer"):
        reader(written(prompts, ["x" * 10]))
    assert reader.forwards == 0
    with pytest.raises(ModelError, match="its context, got 300"):
        streams("rotary", texts=PROMPTS[:1], own=["x" * 300])


def test_models_that_cannot_be_rewound_are_refused() -> None:
    """A model with an encoder is refused when the reader is built."""
    tiny = tiny_tokenizer()
    binding = Binding(tiny_model(), tiny, read_prompts(tiny, tiny_model(), ["a"]))
    with pytest.raises(ModelError, match="must be a causal one"):
        binding.foreign_reader([[5]], encoder_decoder_model(), tiny)


def test_a_reader_cannot_be_pickled() -> None:
    """The error names the way out: pickle the chain."""
    with pytest.raises(ModelError, match="pickle the chain"):
        pickle.dumps(streams("rotary")[1])
