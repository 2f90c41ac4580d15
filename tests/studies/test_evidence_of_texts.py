"""The studies of cut prompts, pairs of models and styles: items, choices and tables, by hand and on tiny models."""

from __future__ import annotations

import doctest
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.bench.tasks.style_prompts import PROMPTS
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import bench_pairs, cut_tables, ensemble_bytes, ensemble_pairs, partial_words, style_prompting
from studies.evidence import half_of, item_id
from studies.records import read_records

STORY = "Some men said that this thing and that house were something in a household of many kinds. "
PROGRAM = "    values = list(range(3))\n    return sum(values[1:])\n"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small books and programs; every name of a model means the tiny model."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    monkeypatch.setattr(models, "load_tokenizer", lambda name: tiny_tokenizer())
    text = "some thing hold house " * 5 + STORY * 8
    for book in partial_words.BOOKS:
        (tmp_path / book).write_text(f"*** START OF\n\n{text}\n\n{text}*** END OF the notes", encoding="utf-8")
    task = {"task_id": "HumanEval/0", "prompt": "def total():\n", "canonical_solution": PROGRAM}
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(task) + "\n")
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps([{"task_id": 1, "code": PROGRAM}]), encoding="utf-8")
    (tmp_path / "lambada_test.jsonl").write_text(json.dumps({"text": STORY}) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("module", [partial_words])
def test_examples_run(module: object) -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_cuts_lie_between_units(data: Path) -> None:
    """A compound counts once, signs that are one operator are not parted, and a longer choice begins with a shorter."""
    chosen = partial_words.chosen_cuts(data, 3, lambda cut: True)
    by_kind = {kind: [cut for cut in chosen if cut.kind == kind] for kind in partial_words.KINDS}
    assert {cut.before[-4:] + "|" + cut.after[:5] for cut in by_kind["compound"]} == {"some|thing", "ouse|hold "}
    assert {cut.before[-1] + cut.after[0] for cut in by_kind["signs"]} <= {"))", ":]", "])"}
    assert len(by_kind["prose"]) == 3 and not any("notes" in cut.after for cut in chosen)
    shorter = partial_words.chosen_cuts(data, 1, lambda cut: True)
    assert {cut.name for cut in shorter} <= {cut.name for cut in chosen}
    none_inside = partial_words.chosen_cuts(data, 3, lambda cut: False)
    assert {cut.kind for cut in none_inside} == {"prose", "code"}


def test_the_tables_of_cuts_by_hand() -> None:
    """byte_boundary is right twice and the hard mask once; a failure of token healing counts as wrong."""
    methods = (*cut_tables.ROWS.values(), cut_tables.BOUNDARY, cut_tables.ALIGNED)
    records = []
    for kind in partial_words.KINDS:
        for number in range(2):
            losses = {method: 1.0 + number for method in methods if "healing" not in method}
            hits = dict.fromkeys(methods, True) | {"hard mask": number == 0, "transformers token_healing": None}
            records.append({"kind": kind, "hits": hits, "losses": losses | {"byte_boundary": 0.5}})
    tables = partial_words.results(records)
    assert "| code | 2 | transformers token_healing | 0.000 [0.000, 0.000] | - |" in tables["bytes"]
    assert "| prose: byte_boundary - hard mask | share right | 2 | +0.500 [" in tables["comparisons"]
    assert "| signs: byte_boundary - plain prompt | bits a cut | 2 | -1.000 [" in tables["comparisons"]


def test_spans_are_those_of_the_text(data: Path) -> None:
    """A span begins with a space and follows its prompt; names and their order do not depend on the number."""
    found = dict(ensemble_pairs.spans(data, "prose"))
    texts = [text for _, _, text in partial_words.book_texts(data)]
    assert len(found) > 10
    assert all(any(item.prompt + item.options[0] in text for text in texts) for item in found.values())
    assert all(item.options[0].startswith(" ") and len(item.options[0]) == 24 for item in found.values())
    halves = [ensemble_pairs.split(name) for name in found]
    assert set(halves[: len(halves) // 3]) == {"development", "held-out"}  # the order says nothing of the half


def test_settings_of_ensembles_are_chosen_on_development_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out items prefer another weight, and only they are compared; impossible spans are counted."""
    alone = ["main alone", "gemma alone"]
    labels = [*alone, *ensemble_pairs.MEANS.values(), *ensemble_pairs.CORES, *ensemble_pairs.TRUNCATED]
    labels += [*(f"bytes, {label}" for label in alone), *ensemble_bytes.ENSEMBLES]
    records: list[dict[str, Any]] = []
    for number in range(12):
        for kind in ("prose", "code", "prose, words", "code, words"):
            item = f"{kind.split(',')[0]} {number}"
            best = "mean, main 0.7" if ensemble_pairs.split(item) == "development" else "mean, main 0.3"
            losses: dict[str, float | None] = dict.fromkeys(labels, 1.0 + number / 10)
            records.append({"item": item, "kind": kind, "losses": losses | {best: 0.5, "core of ten tokens": None}})
    monkeypatch.setattr(ensemble_bytes, "boundaries", lambda records: "")
    tables = ensemble_pairs.results(records)
    held_out = sum(ensemble_pairs.split(f"code {number}") == "held-out" for number in range(12))
    assert f"| code | {held_out} | mean, main 0.7 | chosen |" in tables["spans"]
    assert f"| core of ten tokens |  | inf on {held_out} items |" in tables["spans"]
    assert "code: mean, main 0.7 - mean, main 0.5 | nats a byte |" in tables["comparisons"]
    assert "code, words: bytes, mean, main 0.3 - mean, main 0.7 | nats a byte |" in tables["comparisons"]


def test_a_style_is_chosen_among_settings_that_stay_fluent() -> None:
    """The strongest setting triples the perplexity, so the second is chosen; without any, the most fluent one."""
    book = "1661-0.txt"
    items = [item_id(prompt) for prompt in PROMPTS["narrative"]]
    records: list[dict[str, Any]] = []
    for method, group in {"plain": [""], **style_prompting.METHODS}.items():
        for rank, setting in enumerate(group):
            strong = 2.0 if method == "prompting" else 0.0
            base = [strong + 1.0, strong + 1.1, 3.0][rank]
            row = {
                "book": book,
                "method": method,
                "setting": setting,
                "style": 7.0 - rank,
                "base": base,
                "distinct": 1.0,
            }
            records += [{**row, "item": item} for item in items]
    chosen = style_prompting.chosen_settings(records, book)
    assert chosen["ngram_style"] == "weight 0.1" and chosen["prompting"] in ("author named", "900 characters quoted")


def test_a_further_model_has_tables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: two records of the first model and one of a second, whose name is in those of its tables and rows."""
    monkeypatch.setattr(
        style_prompting, "model_results", lambda records, before: {"comparisons": f"{before}{len(records)}"}
    )
    records = [{"settings": {"model": name}} for name in ("first", "second-2", "first")]
    assert style_prompting.results(records) == {"comparisons": "2", "comparisons_second_2": "second-2, 1"}


def test_the_study_of_styles_samples_what_is_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings are sampled on the development prompts, the chosen ones on the others; a second run adds nothing."""
    monkeypatch.setattr(style_prompting, "BOOKS", {"1661-0.txt": "an author"})
    monkeypatch.setattr(style_prompting, "results", lambda records: {})
    out = data / "style.jsonl"
    prompts = [prompt for kind in PROMPTS.values() for prompt in kind][:4]
    halves = [half_of(item_id(prompt)) for prompt in prompts]
    assert set(halves) == {"development", "held-out"}
    for _ in range(2):
        style_prompting.main(data=data, model="tiny", prompts=4, tokens=4, out=out)
        expected = 10 * halves.count("development") + 4 * halves.count("held-out")
        assert len(read_records(out)) == expected
    assert STORY[:20] not in out.read_text(encoding="utf-8")


def test_strategies_of_a_run_are_paired_by_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples of one strategy alone and other strategies do not count; the kept file gives the same table."""
    rows = [("core", "a", 1.0), ("core", "b", 2.0), ("core", "c", 9.0), ("ensemble", "a", 0.5), ("ensemble", "b", 1.0)]
    rows.append(("plain", "a", 5.0))
    lines = [
        json.dumps({"task": "arc", "chain": chain, "sample": sample, "metrics": {"loss": loss, "impossible": 0.0}})
        for chain, sample, loss in rows
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bench_pairs.main(tmp_path / "results.jsonl", "core", "ensemble", keep=tmp_path / "kept.jsonl")
    bench_pairs.main(tmp_path / "kept.jsonl", "core", "ensemble")
    first, second = (text for text in capsys.readouterr().out.split("| difference |") if text)
    assert first == second and "| arc: core - ensemble | nats | 2 | +0.750 [" in first
