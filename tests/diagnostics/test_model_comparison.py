"""Comparisons of two models against every prefix, read again in double precision, and their ways into files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.diagnostics import (
    ModelComparison,
    compare,
    comparison_csv,
    comparison_data,
    read_comparison_texts,
    token_differences,
    write_labels,
)
from logitkit.diagnostics.comparison_summary import facts, largest_moves, most_critical, most_divergent
from logitkit.diagnostics.paired_distributions import windows
from logitkit.diagnostics.token_spellings import TokenSpellings
from logitkit.errors import FileFormatError, ModeError, ModelError, NoEffectWarning, ParameterError, PromptError
from logitkit.processors.byte_level import ByteTree
from logitkit.processors.cascade import DivergenceLabels, ModelPair, read_labels, router_examples, router_head_config
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model, wide_model

TEXT = "the cat sat"


def tiny_pair(text: Any = TEXT, **settings: Any) -> ModelComparison:
    """Compare two tiny models of one tokenizer."""
    return compare(tiny_model(), tiny_tokenizer(), tiny_model(1), text, **settings)


def foreign_pair(text: Any = TEXT, **settings: Any) -> ModelComparison:
    """Compare two tiny models of different tokenizers."""
    settings = {"other_tokenizer": foreign_tokenizer()} | settings
    return compare(tiny_model(), tiny_tokenizer(), foreign_model(), text, **settings)


@pytest.mark.parametrize("positions", [2, 32])
def test_tokens_are_those_of_every_prefix(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prefix is read again by both models in double precision."""
    monkeypatch.setattr("logitkit.diagnostics.paired_distributions.POSITIONS", positions)
    found, ids = tiny_pair(), tiny_tokenizer()(TEXT)["input_ids"]
    doubles = [copy.deepcopy(tiny_model(seed)).double() for seed in (0, 1)]
    assert found.texts[0].prompt_ids == ids[:1] and found.columns.ids.tolist() == ids[1:]
    gained = torch.zeros(272, dtype=torch.float64)
    for place in range(1, len(ids)):
        p, q = (double(torch.tensor([ids[:place]])).logits[:, -1] for double in doubles)
        want = token_differences(p, q, torch.tensor(ids[place : place + 1]), plausible=0.01)
        gained += (q.softmax(-1) - p.softmax(-1))[0]
        for name, column in found.columns._asdict().items():
            torch.testing.assert_close(column[place - 1 : place], getattr(want, name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.gained, gained.detach(), atol=1e-4, rtol=1e-4)


def test_bytes_are_those_of_each_tree() -> None:
    """Over bytes each distribution is that of a tree that reads one prefix, normalised."""
    text = "on thé mat"
    found = foreign_pair(text)
    trees = [ByteTree(tiny_model(), tiny_tokenizer()), ByteTree(foreign_model(), foreign_tokenizer())]
    data = text.encode()
    assert found.level == "bytes" and found.columns.ids.tolist() == list(data) and found.texts[0].prompt_ids == []
    leaks = torch.zeros(2, dtype=torch.float64)
    for place in range(len(data)):
        p, q = (tree.distribution(data[:place]).logp for tree in trees)
        for byte in range(257):  # what one of them excludes is left out
            if min(float(p[byte]), float(q[byte])) == -math.inf:
                p[byte] = q[byte] = -math.inf
        want = token_differences(p[None], q[None], torch.tensor([data[place]]), plausible=0.01)
        leaks += torch.stack([1 - p.exp().sum(), 1 - q.exp().sum()])
        for name, column in found.columns._asdict().items():
            torch.testing.assert_close(column[place : place + 1], getattr(want, name), atol=1e-4, rtol=1e-4)
    assert bool(found.columns.kl.isfinite().all())
    assert found.leaks == pytest.approx((leaks / len(data)).tolist(), abs=1e-4)
    assert found.begins == ("<s>", "<begin>") and "exact over the tokenizations" in dict(facts(found))["Bytes"]


def test_windows_by_hand_and_of_any_size() -> None:
    """Every place is predicted once, in order, with at least half a window before it once there is one."""
    assert [tuple(window) for window in windows(1, 10, 6)] == [(0, 6, 1), (3, 9, 7)]
    for length in range(2, 40):
        for size in range(4, 20):
            found = windows(1, length, size)
            counted = [place for begin, end, first in found for place in range(first, end + 1)]
            assert counted == list(range(1, length))
            assert all(end - begin <= size and end < length for begin, end, _ in found)
            assert all(first - begin >= size // 2 for begin, _, first in found[1:])


def test_long_texts_are_read_in_windows_and_cut_where_asked() -> None:
    """The windows of a text begin with its special tokens; what they read is what a short text of it reads."""
    begin = copy.deepcopy(tiny_tokenizer())
    text = "a text that is much longer than the window"
    ids = [begin.bos_token_id, *begin(text)["input_ids"]]
    answer = DivergenceLabels(prompt=0, prompt_ids=ids[:1], answer_ids=ids[1:], small_ids=[], labels=[])
    found = tiny_pair([answer], window=9)
    assert found.texts[0].windows > 3 and len(found) == len(ids) - 1
    window = [ids[0], *ids[5:13]]  # eight tokens behind the special one, from the second window on
    alone = tiny_model()(torch.tensor([window])).logits[0, -1].detach().double().log_softmax(-1)
    assert float(found.columns.logp[12, 0]) == pytest.approx(float(alone[ids[13]]), abs=1e-4)
    notices = [said for term, said in facts(found) if term == "Notice"]
    assert notices and "text 1: longer than 9 tokens and read in windows" in notices[0]
    cut = tiny_pair(text, max_tokens=5)
    torch.testing.assert_close(cut.columns.logp, tiny_pair(text).columns.logp[:5], atol=1e-5, rtol=0)
    assert dict(facts(cut))["Notice"] == f"text 1: cut, {len(text) - 6} tokens at the end not compared"
    whole, parts = foreign_pair("né" * 10), foreign_pair("né" * 10, window=8)
    assert len(whole) == len(parts) == 30 and parts.texts[0].windows > 2


def test_no_more_is_read_than_a_model_can() -> None:
    short = copy.deepcopy(tiny_model(1))
    short.config.max_position_embeddings = 12
    found = compare(tiny_model(), tiny_tokenizer(), short, "a text of some length")
    assert found.window == 12 and found.texts[0].windows > 1
    assert compare(tiny_model(), tiny_tokenizer(), short, "né and more", over_bytes=True).window == 10


def test_the_same_model_twice_warns_and_differs_nowhere() -> None:
    with pytest.warns(NoEffectWarning, match="compare: both models are the same"):
        found = compare(tiny_model(), tiny_tokenizer(), copy.deepcopy(tiny_model()), TEXT, divergence=0.0)
    assert float(found.divergences.max()) < 1e-12 and set(found.labels(0).labels) == {0}
    assert [part.tokens for part in found.quadrants.quadrants][1::2] == [0, 0]
    assert most_divergent(found, 3) == most_critical(found, 3) == [] and largest_moves(found, 3) == ([], [])
    assert "no token, or one without limit" in dict(facts(found))["Carried by"]


def test_models_of_other_widths_are_compared_on_shared_tokens() -> None:
    """An id that only one model can write has no probability in either."""
    wide, narrow = wide_model(280), tiny_model()
    found = compare(wide, tiny_tokenizer(), narrow, TEXT)
    logits = wide(torch.tensor([tiny_tokenizer()(TEXT)["input_ids"][:1]])).logits[0, -1, :272].detach()
    want = logits.double().log_softmax(-1)[found.columns.ids[0]]
    assert found.level == "tokens" and float(found.columns.logp[0, 0]) == pytest.approx(float(want), abs=1e-4)


def test_rows_name_the_tokens_that_stand_out() -> None:
    """The largest divergence first, the lowest estimate first; each with its text, its place and the text before."""
    found = tiny_pair([TEXT, "né"])
    rows = most_divergent(found, 4)
    order = found.columns.js_bits.argsort(descending=True)[:4].tolist()
    assert [row.number for row in rows] == order
    text, place = found.place(order[0])
    assert (rows[0].text, rows[0].place) == (text + 1, place + 1)
    assert TEXT.startswith(most_divergent(tiny_pair(), 1)[0].before)
    critical = most_critical(found, 2)
    assert critical[0].contrast == pytest.approx(float(found.columns.contrast.min()))
    gaining, losing = largest_moves(found, 2)
    assert gaining[0][1] == pytest.approx(float(found.gained.max())) and losing[0][1] < 0


def test_labels_are_router_labels(tmp_path: Path) -> None:
    """By the rule: identical, or divergent above the threshold, else neutral; a router head reads the file."""
    found = tiny_pair(divergence=0.6)
    labels, columns = found.labels(0), found.columns
    for label, (mine, other), js in zip(labels.labels, columns.likeliest.tolist(), columns.js_bits, strict=True):
        assert label == (0 if mine == other else 2 if js > 0.6 else 1)
    assert set(labels.labels) == {1, 2}
    path = tmp_path / "labels.jsonl"
    pair = ModelPair(small=tiny_model(), large=tiny_model(1), tokenizer=tiny_tokenizer())
    write_labels(path, found, pair.fingerprint())
    settings, stored = read_labels(path)
    assert settings.judge == "js > 0.6 bits" and settings.pair == pair.fingerprint() and stored == [labels]
    features, targets = router_examples(stored, tiny_model(), router_head_config(tiny_model(), top_logits=5))
    assert len(features) == len(targets) == len(labels.labels)
    again = read_comparison_texts([str(path)])
    assert again.pairs == {pair.fingerprint()}
    back = tiny_pair(again.texts)
    assert back.texts[0].judged == labels.labels and back.labels(0).answer_ids == labels.answer_ids
    torch.testing.assert_close(back.columns.js_bits, columns.js_bits)
    assert foreign_pair(again.texts).columns.ids.tolist() == list(TEXT[1:].encode())
    with pytest.raises(ModeError, match="labels must be of tokens, got bytes"):
        write_labels(path, foreign_pair(), pair.fingerprint())


def test_data_and_table_hold_every_token() -> None:
    found = tiny_pair([TEXT, "né"])
    data = json.loads(json.dumps(comparison_data(found), allow_nan=False))
    assert [len(text["js_bits"]) for text in data["texts"]] == [10, 2] and data["tokens"] == 12
    assert (
        "".join(data["texts"][0]["pieces"]) == TEXT[1:] and data["texts"][1]["answer_ids"] == found.labels(1).answer_ids
    )
    assert sum(part["share"][0] for part in data["quadrants"]) == pytest.approx(1)
    lines = comparison_csv(found).splitlines()
    assert len(lines) == 13 and lines[-1].startswith('1,2,"é"')
    assert json.loads(json.dumps(comparison_data(foreign_pair()), allow_nan=False))["level"] == "bytes"


def test_spellings_join_to_the_text() -> None:
    """Characters stand at their last byte; bytes that never become one are escaped; special tokens have names."""
    spellings = TokenSpellings(tiny_tokenizer())
    text = "né 漢 e\u0301 🙂"
    pieces = spellings.pieces(tiny_tokenizer()(text)["input_ids"])
    assert "".join(pieces) == text and pieces[1:3] == ["", "é"]
    ids = tiny_tokenizer()(text)["input_ids"]
    assert spellings.pieces(ids[:2]) == ["n", "\\xc3"] and spellings.pieces([ids[1], 256]) == ["", "\\xc3<s>"]
    assert spellings.name(271) == "<id 271>" and TokenSpellings(None).name(256) == "<end>"
    assert TokenSpellings(None).pieces([0xFF, 65]) == ["\\xff", "A"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"texts": []}, "texts must be one or more texts of valid Unicode"),
        ({"texts": 5}, "texts must be one or more texts of valid Unicode"),
        ({"texts": [None]}, "texts must be one or more texts of valid Unicode"),
        ({"texts": "x\ud800"}, "texts must be one or more texts of valid Unicode"),
        ({"measure": "tv"}, "measure must be one of js, kl, reverse_kl"),
        ({"divergence": -0.1}, "divergence must be a number >= 0"),
        ({"divergence": math.nan}, "divergence must be a number >= 0"),
        ({"entropy": -1.0}, "entropy must be a number >= 0"),
        ({"beta": 0.0}, "beta must be a finite number > 0"),
        ({"beta": math.inf}, "beta must be a finite number > 0"),
        ({"plausible": 1.1}, "plausible must be a number >= 0 and <= 1"),
        ({"max_tokens": 0}, "max_tokens must be a whole number >= 1"),
        ({"max_tokens": True}, "max_tokens must be a whole number >= 1"),
        ({"window": 7}, "window must be a whole number >= 8"),
        ({"window": 8.5}, "window must be a whole number >= 8"),
    ],
)
def test_bad_parameters_are_named(settings: dict[str, Any], rule: str) -> None:
    arguments: dict[str, Any] = {"texts": TEXT} | settings
    with pytest.raises(ParameterError, match=rule):
        compare(tiny_model(), tiny_tokenizer(), tiny_model(1), arguments.pop("texts"), **arguments)


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="compare: model must be decoder-only"):
        compare(tiny_model(), tiny_tokenizer(), encoder_decoder_model(), TEXT)
    with pytest.raises(PromptError, match="compare: text 2 must have a token to compare, got 'a'"):
        tiny_pair([TEXT, "a"])
    with pytest.raises(PromptError, match="compare: text 1 must have a token to compare"):
        foreign_pair("")
    with pytest.raises(PromptError, match="compare: the other model"):
        compare(wide_model(280), tiny_tokenizer(), tiny_model(), [answer_of([65, 66, 279])])


def answer_of(ids: list[int]) -> DivergenceLabels:
    """Return an answer without labels."""
    return DivergenceLabels(prompt=0, prompt_ids=ids[:1], answer_ids=ids[1:], small_ids=[], labels=[])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "  \n", "must hold a text, got none"),
        ("a.jsonl", "{", "line 1 of .* must be a JSON object"),
        ("a.jsonl", '{"input": "a"}', "with a text 'text'.*see --field"),
        ("a.jsonl", '{"kind": "divergence labels", "version": 1}', "start with the settings of its run"),
        ("a.txt", b"\xff", "must be a file of UTF-8 text"),
    ],
)
def test_bad_files_are_named(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=message):
        read_comparison_texts([str(path)])


def test_texts_and_files(tmp_path: Path) -> None:
    """A file stands for its texts and any other argument for itself; an absent file is not taken for a text."""
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b").write_text("three\nand more\n")
    found = read_comparison_texts(["a text", str(tmp_path / "a.jsonl"), str(tmp_path / "b"), "see a.txt"])
    assert found.texts == ["a text", "one", "two", "three\nand more", "see a.txt"] and found.pairs == set()
    with pytest.raises(FileFormatError, match=r"nowhere\.txt must be a file"):
        read_comparison_texts(["nowhere.txt"])
    with pytest.raises(ParameterError, match="text 1 must be a text that is not empty"):
        read_comparison_texts([" "])
    with pytest.raises(ParameterError, match="text 1 must be valid Unicode"):
        read_comparison_texts(["\ud800"])
