"""The studies of the pages of evidence: halves, power, parts of pages, and each study with tiny models or by hand."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.power import TTestPower

from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import context_answers, evidence, evidence_plan, leaderboard
from studies.context_conflict import conflicts
from studies.evidence import PairedDifferences, comparison_table, half_of, smallest_seen, write_results
from studies.records import read_records

ROWS = [
    {"question": '"Who wrote ""Emma""?"', "golden_answers": ["Jane Austen", "Austen"]},
    {"question": "Which planet is red?", "golden_answers": ["Mars"]},
    {"question": "Which god of the sea is Roman?", "golden_answers": ["Neptune"]},
]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the tiny model, whichever model a study names."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))


@pytest.mark.parametrize("module", [evidence, evidence_plan, leaderboard, context_answers])
def test_examples_run(module: object) -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_a_third_of_the_items_is_for_development() -> None:
    """Of 3000 names within four standard deviations of 1000, which is 103."""
    count = sum(half_of(f"item {number}") == "development" for number in range(3000))
    assert abs(count - 1000) < 104


def test_power_agrees_with_statsmodels() -> None:
    """The t test of statsmodels, for one comparison and for ten; equal differences have no known spread."""
    differences = [-1.0, 1.0, 3.0, 1.0] * 25
    spread = (2 * 100 / 99) ** 0.5
    for comparisons in (1, 10):
        exact = TTestPower().solve_power(nobs=100, alpha=0.05 / comparisons, power=0.8) * spread
        assert smallest_seen(differences, comparisons) == pytest.approx(exact, rel=1e-3)
    assert evidence.items_to_see(differences, smallest_seen(differences)) in ("100", "101")
    assert "| unknown |" in comparison_table([PairedDifferences("a - b", "bits", [0.0, 0.0])])


def test_the_table_of_comparisons_corrects_for_all_of_them() -> None:
    """Ten differences of one sign have p = 2 / 2**10 each, twice that after the correction for two."""
    one = PairedDifferences("a - b", "bits", [1.0, 2.0] * 5)
    lines = comparison_table([one, one]).splitlines()
    assert lines[2].startswith("| a - b | bits | 10 | +1.500 [") and "| 0.004 |" in lines[2]


def test_only_the_named_parts_of_a_page_are_replaced(tmp_path: Path) -> None:
    """Twice the same, and a part of another name stays."""
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- results: x -->\n<!-- end -->\nb\n<!-- results: y -->\nold\n<!-- end -->\n", encoding="utf-8"
    )
    for _ in range(2):
        write_results(page, {"x": "new"})
        assert page.read_text() == (
            "a\n<!-- results: x -->\n\nnew\n\n<!-- end -->\nb\n<!-- results: y -->\nold\n<!-- end -->\n"
        )


@pytest.mark.usefixtures("tiny")
def test_the_study_of_answers_equals_whole_prompts_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The common beginning of the prompts changes no logits; a second run and a longer one read what is missing."""
    monkeypatch.setattr(context_answers, "results", lambda records: {})  # three questions have no two halves
    (tmp_path / "triviaqa_subsample.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8"
    )
    items = conflicts(ROWS, 3)
    reader = context_answers.AnswerReader(tiny_model(), tiny_tokenizer(), [item.prompt for item in items])
    (logits, _), tokens = reader.logits([items[0].prompt, items[1].prompt], " Mars")
    whole = tiny_tokenizer()(items[0].prompt + " Mars", return_tensors="pt")["input_ids"]
    expected = tiny_model()(whole).logits[0, -len(tokens) - 1 : -1].detach().log_softmax(-1)
    assert (logits.log_softmax(-1) - expected).abs().max() < 1e-4
    with pytest.raises(ValueError, match="prompt must begin with the examples"):
        reader.logits(["Other"], " Mars")
    out = tmp_path / "out.jsonl"
    for count in (2, 2, 3):
        context_answers.main(data=tmp_path, model="tiny", items=count, out=out)
        assert len(read_records(out)) == count
    assert "Neptune" not in out.read_text() and "planet" not in out.read_text()


def test_the_strength_is_chosen_by_the_development_questions() -> None:
    """The held-out questions, where another strength is better, do not count; comparisons do not see development."""

    def record(number: int, best: float) -> dict[str, Any]:
        names = [
            "plain",
            "no context",
            *(f"{m} {a:g}" for m in context_answers.METHODS for a in context_answers.STRENGTHS),
        ]
        losses = dict.fromkeys(names, (1.0 + number / 10, False))
        losses |= {f"{method} {best:g}": (0.5, True) for method in context_answers.METHODS}
        half = "development" if number < 2 else "held-out"
        return {"half": half, "results": dict.fromkeys(context_answers.SITUATIONS, losses)}

    records = [record(number, 0.25 if number < 2 else 4.0) for number in range(6)]
    assert set(context_answers.chosen_strengths(records).values()) == {0.25}
    tables = context_answers.results(records)
    assert "4 held-out questions" in tables["answers"]
    assert "| conflict: cad 0.25 - plain | points written | 4 | +0.000 [" in tables["comparisons"]


def test_a_long_section_of_the_leaderboard_counts_what_is_not_shown() -> None:
    """Forty comparisons are all listed; of 41 those that are not shown are counted, over all tables of the page."""
    head = "| difference | unit | items | mean, 95 % | p (Holm) |\n|---|---|---|---|---|\n"
    shown = "| a - b | points | 9 | +1.0 [+0.5, +1.5] | 0.001 |\n"
    others = "| c - b | points | 9 | +1.0 [-0.5, +1.5] | 1.000 |\n"
    page = f"{head}{shown}{others * 19}\n{head}{shown}{others * 18}"
    whole = leaderboard.page_section("page", "Title", page + others)
    assert whole.count("| not shown |") == 38 and whole.count("| better |") == 2 and "comparisons are" not in whole
    short = leaderboard.page_section("page", "Title", page + others * 2)
    assert short.count("| not shown |") == 0 and short.count("| better |") == 2
    assert "From [its page](page.md).\n39 of 41 comparisons are *not shown*; they stand on that page alone.\n" in short
