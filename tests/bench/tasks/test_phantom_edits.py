"""Phantom edits: outcomes by hand, against a slow reference, with the classes of the paper's examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

import logitkit
from fresh import ROOT
from logitkit.bench.config import datasource, read
from logitkit.bench.execution.unit import samples
from logitkit.bench.tasks import Answer, Fate, PhantomEdits, Sample, fates_of
from logitkit.bench.tasks.edit_outcomes import KINDS, TokenizedText, align, kind_of
from logitkit.bench.tasks.phantom_edits import ids_before_stop
from logitkit.errors import FileFormatError, ModelError
from logitkit.processors.tokens import Vocabulary
from logitkit.registry import default_registry
from logitkit.registry.laws import foreign_model, foreign_tokenizer
from reference.byte_covers import random_model, random_tokenizer

PASSAGE = "one old other orchard there, on the northern sea then"
VOCABULARY = Vocabulary.of(foreign_tokenizer())


def task_of(text: str = PASSAGE, **options: Any) -> PhantomEdits:
    """A task with one passage."""
    return PhantomEdits(rows=[{"text": text}], **{"words": len(text.split()), "targets": 2, **options})


def encode(text: str) -> list[int]:
    """The tokenizer's own tokens of a text."""
    return list(foreign_tokenizer()(text, add_special_tokens=False)["input_ids"])


def cut_into_bytes(text: str, word: str) -> list[int]:
    """The tokens of a text, with those that hold a word, and the space before it, replaced by tokens of one byte."""
    before, _, after = text.partition(f" {word}")
    return [*encode(before), *(VOCABULARY.ids_of[bytes([byte])][0] for byte in f" {word}".encode()), *encode(after)]


def fates(ids: list[int], **options: Any) -> list[Fate]:
    """What became of the two bracketed words of the passage."""
    return fates_of(task_of(**options).samples[0], foreign_tokenizer(), VOCABULARY, ids)


def test_the_outcomes_by_hand() -> None:
    """Of the words "orchard" and "northern": the same tokens, tokens of one byte, another word, nothing."""
    (sample,) = task_of().samples
    assert [PASSAGE[start:end] for start, end in sample.data["targets"]] == ["orchard", "northern"]
    assert [fate.outcome for fate in fates(encode(PASSAGE))] == ["unchanged", "unchanged"]
    split = fates(cut_into_bytes(PASSAGE, "northern"))
    assert [(fate.outcome, fate.kind, fate.same_bytes) for fate in split] == [
        ("unchanged", "", False),
        ("phantom_edit", "resegmentation", True),
    ]
    other = PASSAGE.replace("orchard", "port")
    assert [fate.outcome for fate in fates(encode(other))] == ["replaced", "unchanged"]
    assert [fate.outcome for fate in fates(encode("one old other"))] == ["missing", "missing"]
    assert [fate.outcome for fate in fates([])] == ["missing", "missing"]
    assert [fate.outcome for fate in fates(encode(PASSAGE.replace("orchard ", "")))] == ["missing", "unchanged"]


def test_white_space_is_no_other_text() -> None:
    """A line break before a word is a phantom edit, but not one of the same bytes: both are the tokenizer's tokens."""
    for white, kind in (("\n", "newline"), ("  ", "whitespace_detached"), ("", "whitespace_shift")):
        first = fates(encode(PASSAGE.replace(" orchard", f"{white}orchard").replace("otherorchard", "other/orchard")))[
            0
        ]
        assert (first.outcome, first.kind, first.same_bytes) == ("phantom_edit", kind, False), white


def test_a_word_left_in_brackets_has_the_tokens_that_it_has_there() -> None:
    """The tokens behind a bracket have no space; an answer that repeats the brackets changes nothing."""
    (sample,) = task_of().samples
    marked = PASSAGE.replace("orchard", "[orchard]").replace("northern", "[northern]")
    assert f"Passage: {marked}\n" in task_of().request(sample, None).prompt
    assert [fate.outcome for fate in fates(encode(marked))] == ["unchanged", "unchanged"]
    bare = PASSAGE.replace(" orchard", " -orchard")  # "orchard" without its space, and without a bracket
    assert fates(encode(bare))[0].kind == "whitespace_shift"


EXAMPLES = {  # the examples of arXiv:2601.14658
    "whitespace_shift": ([" February"], ["February"]),
    "whitespace_detached": ([" Saturday"], [" ", " Saturday"]),
    "newline": ([" However"], ["\n", "However"]),
    "resegmentation": ([" unbelievable"], ["un", "bel", "ievable"]),
    "proper_noun": ([" Dorm", "er"], ["D", "orm", "er"]),
    "morphology": ([" repaid"], ["re", "paid"]),
    "acronym": ([" HIV"], ["H", "IV"]),
    "tail": ([" rights"], ["right", "s"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_classes_fit_the_examples_of_the_paper(kind: str) -> None:
    """Each of the eight examples, in both directions, has the class that the paper gives it."""
    old, new = EXAMPLES[kind]
    assert kind_of(old, new) == kind_of(new, old) == kind


def test_more_classes_by_hand() -> None:
    """Both affixes are still morphology; a capital at the start of a sentence is no name; two ids may have one text."""
    assert kind_of([" unreadable"], [" un", "read", "able"]) == "morphology"
    assert kind_of([" Walking"], [" Wal", "king"]) == "proper_noun"
    assert kind_of([" Walking"], [" Wal", "king"], begins=True) == "resegmentation"
    assert kind_of(["the"], ["the"]) == "resegmentation"
    assert kind_of([" A"], ["A"]) == "whitespace_shift"
    assert kind_of([" boxes"], [" box", "es"]) == "tail" and kind_of([" boxes"], [" bo", "xes"]) == "resegmentation"
    assert kind_of(["\t", "word"], ["    ", "word"]) == "whitespace_shift"


def test_an_alignment_by_hand() -> None:
    """Up to three words may differ around a replacement, a later word must be the same, and brackets are left out."""
    passage, words = "a b c d e", [(2, 3), (4, 5)]
    marks = ("[", "]")
    assert [place.found for place in align(passage, words, "a [b] x y d e", marks)] == ["equal", "other"]
    assert align(passage, words, "a [b] x d e", marks)[0][1:] == (3, 4, True)
    assert [place.found for place in align(passage, words, "a x y z e", marks)] == ["other", "other"]
    assert [place.found for place in align("a b c d e f", words, "a x y z w f", marks)] == ["none", "none"]
    assert [place.found for place in align(passage, words, "a x y", marks)] == ["none", "none"]
    assert [place.found for place in align(passage, words, "", marks)] == ["none", "none"]
    assert align("caf\u00e9 x", [(0, 4)], "cafe\u0301 x", marks)[0][:3] == ("equal", 0, 5)  # NFC


def slow_tokens(vocabulary: Vocabulary, ids: list[int], start: int, end: int) -> list[tuple[int, int]]:
    """The reference of `TokenizedText.of_word`: every byte of the text knows its token, one after the other."""
    owner, text = [], b""
    for place, number in enumerate(ids):
        for byte in vocabulary.token_bytes[number] or b"":
            owner.append(place)
            text += bytes([byte])
    first = len(text.decode()[:start].encode())
    last = len(text.decode()[:end].encode())
    found = []
    for place, number in enumerate(ids):
        mine = [offset for offset, each in enumerate(owner) if each == place]
        white = first
        while white and text[white - 1 : white].isspace():
            white -= 1
        inside = any(first <= offset < last for offset in mine)
        before = bool(mine) and all(white <= offset < first for offset in mine)
        if inside or before:
            found.append((mine[0] - first, number))
    return found


WORDS = st.sampled_from(["orchard", "northern", "other", "the", "é🦜", "one"])
GAPS = st.sampled_from([" ", "  ", "\n", "\t ", " \n "])


@settings(max_examples=60)
@given(words=st.lists(st.tuples(GAPS, WORDS, st.booleans()), min_size=1, max_size=6), pick=st.integers(0, 5))
def test_the_tokens_of_a_word_equal_the_reference(words: list[tuple[str, str, bool]], pick: int) -> None:
    """Whatever the white space, and whether the tokenizer or single bytes write the words."""
    ids, text, spans = encode("on"), "on", []
    for gap, word, as_bytes in words:
        spans.append((len(text) + len(gap), len(text) + len(gap) + len(word)))
        text += gap + word
        piece = gap + word
        ids += [VOCABULARY.ids_of[bytes([byte])][0] for byte in piece.encode()] if as_bytes else encode(piece)
    span = spans[pick % len(spans)]
    got = TokenizedText.of(VOCABULARY, ids).of_word(*span)
    assert [tuple(token[:2]) for token in got] == slow_tokens(VOCABULARY, ids, *span)


@settings(max_examples=40)
@given(
    changes=st.lists(
        st.sampled_from(["", "port", "orchard", "[orchard]", "\norchard", "  orchard"]), min_size=2, max_size=2
    ),
    seed=st.integers(0, 3),
)
def test_the_tokenizers_own_tokens_are_no_phantom_edits_of_the_same_bytes(changes: list[str], seed: int) -> None:
    """What canonical() writes has none, whatever the text; and the shares of the outcomes sum to one."""
    text = PASSAGE.replace("orchard", changes[0]).replace("northern", changes[1]) + "." * seed
    found = fates(encode(text))
    assert not any(fate.same_bytes for fate in found)
    result = task_of().judge(task_of().samples[0], Answer(ids=tuple(encode(text)), tokenizer=foreign_tokenizer()))
    assert sum(result[name] or 0.0 for name in ("phantom_edit", "unchanged", "replaced", "missing")) == pytest.approx(1)
    assert sum(result[name] or 0.0 for name in KINDS) == pytest.approx(result["phantom_edit"])
    assert result["non_canonical"] == 0


def test_the_metrics_of_an_answer_by_hand() -> None:
    """One of two words in tokens of one byte; the text behind a stop text does not count."""
    task = task_of()
    (sample,) = task.samples
    ids = [*cut_into_bytes(PASSAGE, "northern"), *encode("\n\none"), *cut_into_bytes("one the", "the")]
    got = task.judge(sample, Answer(ids=tuple(ids), prompt_ids=tuple(encode("on:")), tokenizer=foreign_tokenizer()))
    assert {name: value for name, value in got.items() if value} == {
        "phantom_edit": 0.5,
        "same_bytes": 0.5,
        "unchanged": 0.5,
        "resegmentation": 0.5,
        "non_canonical": 1.0,
    }
    assert list(got) and set(got) == {metric.name for metric in task.metrics}
    clean = [*encode(PASSAGE), *encode("\n\n"), *cut_into_bytes("one the", "the")]
    assert task.judge(sample, Answer(ids=tuple(clean), tokenizer=foreign_tokenizer()))["non_canonical"] == 0
    assert ids_before_stop(VOCABULARY, clean, ["\n\n"]) == encode(PASSAGE)


def test_with_and_without_canonical() -> None:
    """Samples of a random model leave the encoding; under canonical() no answer does."""
    task = task_of()
    (sample,) = task.samples
    shares = {}
    for chain in ("temperature(1.0)", "canonical() | temperature(1.0)"):
        torch.manual_seed(0)
        call = logitkit.chain(chain).bind(foreign_model(), foreign_tokenizer(), ["on the", "the other"] * 4)
        rows = call.ids(call.generate(max_new_tokens=12, do_sample=True))
        answers = [
            Answer(
                ids=tuple(row[call.prompts.width :].tolist()),
                prompt_ids=tuple(call.prompts.tokens(number)),
                model=foreign_model(),
                tokenizer=foreign_tokenizer(),
            )
            for number, row in enumerate(rows)
        ]
        shares[chain] = sum(task.judge(sample, answer)["non_canonical"] or 0 for answer in answers) / len(answers)
    assert shares["temperature(1.0)"] > 0 and shares["canonical() | temperature(1.0)"] == 0


def test_the_words_are_drawn_from_the_text_alone() -> None:
    """Neither first nor last word, no function word, no keyword, no part of an identifier; the same at each time."""
    text = "first there harbour while lambda_value don't well-known Ünïcode northern last"
    data = task_of(text, targets=3).samples[0].data
    assert [text[start:end] for start, end in data["targets"]] == ["harbour", "Ünïcode", "northern"]
    assert data == task_of(text, targets=3).samples[0].data
    with pytest.raises(
        FileFormatError, match=r"phantom_edits: the data must hold a passage with 4 words.*lower targets"
    ):
        task_of(text, targets=4)


def test_code_keeps_its_line_breaks_and_gets_double_brackets() -> None:
    """A row of code is one passage; brackets of Python ask for doubled ones; blank lines do not stop an answer."""
    code = "def shared(first, second):\n    result = [first]\n\n    return result + list(second)"
    task = PhantomEdits(rows=[{"code": code}, {"code": "x = 1"}], field="code", whole_rows=True, targets=2)
    (sample,) = task.samples
    request = task.request(sample, None)
    assert sample.data["passage"] == code and sample.data["marks"] == ["[[", "]]"] and "\n\n" not in request.stops
    assert request.prompt.count("[[") == 4 and "The [[old]] man" in request.prompt
    assert [fate.outcome for fate in fates_of(sample, foreign_tokenizer(), VOCABULARY, encode(code))] == [
        "unchanged"
    ] * 2
    with pytest.raises(FileFormatError, match="row 0 must hold text in 'text'"):
        PhantomEdits(rows=[{"code": code}], whole_rows=True)


def test_a_chat_is_one_message() -> None:
    """With ``chat`` the prompt is a message of the user."""
    task = task_of(chat=True)
    (message,) = task.request(task.samples[0], None).prompt
    assert message["role"] == "user" and "[orchard]" in message["content"]  # type: ignore[index]


def test_tokenizers_that_change_texts_are_refused() -> None:
    """Their tokens do not spell the passage."""
    tokenizer = random_tokenizer(0)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="phantom_edits: tokenizer must keep every byte"):
        task_of().judge(task_of().samples[0], Answer(ids=(0,), model=random_model(tokenizer), tokenizer=tokenizer))


@pytest.mark.data
def test_the_book_and_the_programs(shared_data: Path, shared_tokenizers: Path) -> None:
    """The passages of the book and the programs of MBPP, repeated by a real tokenizer, are unchanged."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(shared_tokenizers / "gpt2"))
    vocabulary = Vocabulary.of(tokenizer)
    spec = default_registry().describe_task("phantom_edits")
    book = spec.build(datasource.rows(spec, None, str(shared_data)), {})
    code = spec.build(
        datasource.rows(spec, "sanitized-mbpp.json", str(shared_data)),
        {"field": "code", "whole_rows": True, "targets": 2},
    )
    assert len(book.samples) > 300 and len(code.samples) > 200
    chosen: list[Sample] = [*book.samples[:20], *code.samples[:20]]
    for sample in chosen:
        ids = tokenizer(" " + sample.data["passage"])["input_ids"]
        assert {fate.outcome for fate in fates_of(sample, tokenizer, vocabulary, ids)} == {"unchanged"}


@pytest.mark.data
def test_the_run_file_of_the_page(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the page names a run file without mistakes; it compares two chains on books and programs."""
    monkeypatch.setenv("LOGITKIT_DATA", str(shared_data))
    assert "logitkit bench examples/bench/phantom_edits.yaml" in (ROOT / "docs/processors/canonical.md").read_text()
    run = read(ROOT / "examples" / "bench" / "phantom_edits.yaml")
    assert list(run.chains) == ["plain", "canonical"] and list(run.tasks) == ["book", "programs"]
    assert [len(samples(run, name)) for name in run.tasks] == [64, 64]
    smaller = read(ROOT / "examples" / "bench" / "phantom_edits_qwen.yaml")
    assert list(smaller.chains) == list(run.chains) and [len(samples(smaller, name)) for name in smaller.tasks] == [10]
