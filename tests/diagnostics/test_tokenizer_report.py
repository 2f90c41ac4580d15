"""Reports of tokenizers: measures by hand, entropies and boundaries against slow counts, losses, the tables."""

from __future__ import annotations

import collections
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from foreign import sentencepiece_tokenizer
from logitkit.diagnostics import report_tables, tokenizer_page, tokenizer_report
from logitkit.diagnostics.parallel_sentences import PARALLEL_SENTENCES
from logitkit.diagnostics.script_coverage import ScriptCoverage, script_coverage, together
from logitkit.diagnostics.token_boundaries import crossings, token_ends
from logitkit.diagnostics.token_entropies import token_entropies
from logitkit.errors import ModelError, ParameterError
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer

TEXTS = st.text("the aon é日🙂\n", min_size=1, max_size=30)


def lossy_tokenizer() -> Any:
    """Return a tokenizer of the words ``a`` and ``b``, without regard to case, that drops white space."""
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


def encoded(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return found["input_ids"], found["offset_mapping"]


def test_worked_example() -> None:
    """By hand: a byte a token, against the tokens ``the``, `` the`` and ``th``."""
    pair = {"bytes": tiny_tokenizer(), "words": foreign_tokenizer()}
    report = tokenizer_report(pair, parallel={"x": ["the the"], "y": ["th"]})
    first, second = (one.texts for one in report.tokenizers.values())
    assert [(text.bytes, text.tokens) for text in first.values()] == [(7, 7), (2, 2), (9, 9)]
    assert [(text.bytes, text.tokens) for text in second.values()] == [(7, 2), (2, 1), (9, 3)]
    assert [text.premium for text in first.values()] == [1, 2 / 7, None]
    assert [text.premium for text in second.values()] == [1, 1 / 2, None]
    assert second["x"].bytes_per_token == 7 / 2 and report.reference == "x"
    # the| the: of six boundaries between bytes, five are inside a token; the one of the other is between two bytes
    assert report.pair is not None and report.pair.crossings["x"] == ((6, 5), (1, 0))
    assert report.pair.crossings["y"] == ((1, 1), (0, 0)) and not report.pair.same
    exact = report.pair.alignments[0][0]
    assert (exact.exact, exact.none, exact.exact_in_texts) == (256, 0, 1.0)


def test_entropies_by_hand() -> None:
    """0 0 1 1: one bit; behind 0 come 0 and 1, behind 1 comes 1: 2/3 bit; with two before it, none."""
    found = token_entropies([[0, 0, 1, 1]], vocabulary=4)
    assert found[:2] == (4, 2)
    assert found[2:] == pytest.approx((1.0, 2 / 3, 0.0, 0.5, 0.5))
    quarter = token_entropies([[0, 0, 0, 1]], vocabulary=2)  # sum of p^2.5 is 27^(5/6)/32 + 1/32
    assert quarter.renyi_efficiency == pytest.approx(math.log2(0.75**2.5 + 0.25**2.5) / -1.5)
    alone = token_entropies([[3]], vocabulary=1)
    assert alone[:5] == (1, 1, 0.0, 0.0, 0.0) and alone.renyi_efficiency == 0


def conditional(segments: list[list[int]], before: int) -> float:
    """Return the conditional entropy as a mean over contexts of the entropy behind each, in bits."""
    behind: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for segment in segments:
        for place in range(before, len(segment)):
            behind[tuple(segment[place - before : place])].append(segment[place])
    total = sum(map(len, behind.values()))
    return sum(
        -count / total * math.log2(count / len(tokens))
        for tokens in behind.values()
        for count in collections.Counter(tokens).values()
    )


@given(segments=st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4))
def test_entropies_equal_a_count(segments: list[list[int]]) -> None:
    """Of each order, context by context; parts are not joined."""
    if not any(segments):
        with pytest.raises(ParameterError, match="at least one token"):
            token_entropies(segments, 4)
        return
    found = token_entropies(segments, 4)
    want = [conditional(segments, before) for before in range(3)]
    assert [found.unigram, found.given_one, found.given_two] == pytest.approx(want, abs=1e-9)
    assert 0 <= found.renyi_efficiency <= found.efficiency + 1e-9 <= 1 + 1e-8


@settings(max_examples=50)
@given(text=TEXTS)
def test_boundaries_and_coverage_equal_a_count(text: str) -> None:
    """A boundary crosses where a token of the other holds the bytes on both sides; a character is in bytes so too."""
    tokenizers = (tiny_tokenizer(), foreign_tokenizer(), sentencepiece_tokenizer())
    ends = [token_ends(each, encoded(each, text)[0], text) or [] for each in tokenizers]
    owners = []
    for each in ends:
        owner = [next(number for number, end in enumerate(each) if place < end) for place in range(len(text.encode()))]
        owners.append(owner)
        assert each[-1] == len(text.encode())
    for own, first in zip(owners, ends, strict=True):
        for other, second in zip(owners, ends, strict=True):
            places = [place for place in range(1, len(own)) if own[place - 1] != own[place]]
            crossing = sum(other[place - 1] == other[place] for place in places)
            assert crossings(first, second) == (len(places), crossing)
    for tokenizer, own in zip(tokenizers, owners, strict=True):
        ids, offsets = encoded(tokenizer, text)
        tokens = tokenizer.convert_ids_to_tokens(ids)
        in_bytes, place = 0, 0
        for character in text:
            size = len(character.encode())
            held = {own[place + step] for step in range(size)}
            in_bytes += len(held) > 1 or tokens[min(held)].startswith("<0x")
            place += size
        found = together([script_coverage(tokenizer, text, ids, offsets)])
        assert sum(one.in_bytes for one in found.values()) == in_bytes
        assert sum(one.characters for one in found.values()) == len(text)


def test_losses_and_unknown_characters() -> None:
    """A line comes back changed, its letter is unknown, and there are no boundaries in bytes."""
    pair = {"lossy": lossy_tokenizer(), "bytes": tiny_tokenizer()}
    report = tokenizer_report(pair, {"note": "a b\nA ж b"})
    found = report.tokenizers["lossy"].texts["note"]
    assert (found.lines, found.lost, found.example) == (2, 2, ("a b\n", "a b"))
    assert found.coverage["Cyrillic"] == ScriptCoverage(1, 0, 1) and found.coverage["Latin"].unknown == 0
    assert report.tokenizers["lossy"].loss and not report.tokenizers["bytes"].loss
    assert report.tokenizers["bytes"].texts["note"].lost == 0
    assert report.pair is not None and report.pair.crossings == {"note": None}
    titles = [table.title for table in report_tables(report)]
    assert titles[-3:] == ["Losses", "Alignment", "Crossing boundaries"]
    assert "one of them does not keep the bytes" in tokenizer_page(report)


def test_the_same_tokenizer_twice() -> None:
    report = tokenizer_report({"one": tiny_tokenizer(), "two": tiny_tokenizer()}, {"note": "né"})
    assert report.pair is not None and report.pair.same
    assert all(side[0].none == 0 for side in report.pair.alignments)
    assert report.pair.crossings["note"] == ((2, 0), (2, 0))


def test_the_sentences_are_parallel() -> None:
    """Six in each language; without a text they are measured."""
    assert {len(lines) for lines in PARALLEL_SENTENCES.values()} == {6}
    report = tokenizer_report({"tiny": tiny_tokenizer()})
    assert list(report.tokenizers["tiny"].texts) == [*PARALLEL_SENTENCES, "all texts"]
    page = tokenizer_page(report)
    assert "<script" not in page and page.count('<td class="bar" aria-hidden') == 13


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokenizers": {}}, "tokenizers must be one or two tokenizers, got 0"),
        ({"texts": {"a": " \n"}}, "must be texts with characters, got 'none in a'"),
        ({"texts": {"a": "\ud800"}}, "must be valid Unicode"),
        ({"texts": {"a": "x"}, "parallel": {"a": ["x"]}}, "named unlike the translations"),
        ({"texts": {"all texts": "x"}}, "rename it"),
        ({"parallel": {"a": ["x"], "b": ["x", "y"]}}, "one a line, got 'a with 1, b with 2'"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        tokenizer_report(**({"tokenizers": {"tiny": tiny_tokenizer()}} | given))


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="fast tokenizer"):
        tokenizer_report({"slow": ByT5Tokenizer()}, {"note": "a"})


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "mistral_v1", "gpt-neox-20b"])
def test_real_tokenizers_equal_a_count_over_bytes(shared_tokenizers: Path, name: str) -> None:
    """Characters in bytes are those inside which a token ends, or that are one byte token; nothing is lost."""
    tokenizer = AutoTokenizer.from_pretrained(str(shared_tokenizers / name))
    text = "\n".join(line for lines in PARALLEL_SENTENCES.values() for line in lines)
    ids, offsets = encoded(tokenizer, text)
    ends = token_ends(tokenizer, ids, text)
    assert ends is not None and ends[-1] == len(text.encode())
    byte_tokens = {end for end, token in zip(ends, ids, strict=True) if "<0x" in tokenizer.convert_ids_to_tokens(token)}
    in_bytes, place, inside = 0, 0, set(ends)
    for character in text:
        size = len(character.encode())
        split = any(place + step in inside for step in range(1, size))
        in_bytes += split or (size == 1 and place + 1 in byte_tokens)
        place += size
    found = script_coverage(tokenizer, text, ids, offsets)
    assert sum(one.in_bytes for one in found.values()) == in_bytes > 0
    report = tokenizer_report({name: tokenizer})
    assert report.tokenizers[name].texts["all texts"].lost == 0
    assert report.tokenizers[name].texts["Hindi"].premium > 3
