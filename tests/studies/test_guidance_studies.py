"""The studies of guidance: conflicts of context and memory, and the cost of gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.errors import FileFormatError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import context_conflict, gate_speed
from studies.context_conflict import Conflict, Judged, conflicts, judged
from studies.gate_speed import Measured
from studies.records import read_records

ROWS = [
    {"question": '"Who wrote ""Emma""?"', "golden_answers": ["Jane Austen", "Austen"]},
    {"question": "Which planet is red?", "golden_answers": ["火星", "Mars"]},
    {"question": "Which god of war is Roman?", "golden_answers": ["Mars"]},
    {"question": "When did it end?", "golden_answers": ["1945"]},
]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the tiny model, whichever model a study names."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))


def test_every_question_has_the_answer_to_another() -> None:
    """Questions without a short answer in ASCII are left out, and no context states a right answer."""
    found = conflicts(ROWS, 10)
    assert {item.swapped for item in found} == {"Jane Austen", "Mars"} and len(found) == 3
    assert all(item.swapped not in item.golden and item.context in item.prompt for item in found)
    assert conflicts(ROWS, 2) == found[:2]


def test_an_answer_is_of_the_context_or_right_or_neither() -> None:
    """Only the first line counts, without case, articles and punctuation."""
    item = Conflict(question="Which planet is red?", golden=["Mars"], swapped="Jane Austen")
    assert judged(item, " the jane austen.\nMars") == Judged(context=True, memory=False)
    assert judged(item, " Mars") == Judged(context=False, memory=True)
    assert judged(item, " Venus") == Judged(context=False, memory=False)


def test_the_table_of_conflicts_by_hand() -> None:
    """Plain decoding follows one of two contexts, every other method both."""
    answers = {
        (m, n): Judged(context=m != "plain" or n == 0, memory=False) for m in context_conflict.METHODS for n in (0, 1)
    }
    lines = context_conflict.table(answers, 2).splitlines()
    assert lines[0] == "| TriviaQA, 2 questions | answer of the context, % | minus plain | right answer, % |"
    assert lines[2].startswith("| plain | 50.0 [") and lines[3].startswith("| cad | 100.0 [100.0, 100.0] | +50.0 [")


@pytest.mark.usefixtures("tiny")
def test_the_study_of_conflicts_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every method answers every question once; a second run generates nothing; other settings are refused."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "triviaqa_subsample.jsonl").write_text(text, encoding="utf-8")
    arguments: dict[str, Any] = {
        "data": tmp_path,
        "model": "tiny",
        "items": 2,
        "batch": 2,
        "out": tmp_path / "out.jsonl",
    }
    tables = []
    for _ in range(2):
        context_conflict.main(**arguments)
        tables.append(capsys.readouterr().out)
        assert len(read_records(tmp_path / "out.jsonl")) == 2 * len(context_conflict.METHODS)
    assert tables[0] == tables[1]
    with pytest.raises(FileFormatError, match=r"context_conflict: .* must be a file of"):
        context_conflict.main(**{**arguments, "items": 3})


def test_the_study_of_gates_measures_every_form(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small run writes three tables; no figure of a tiny model is compared."""
    monkeypatch.setattr(gate_speed, "CHUNKS", (1, 2, 12, 13))
    gate_speed.main(model="any", threshold=[4.4], tokens=14, rounds=1, out=tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert sum(line.startswith("|---") for line in page.splitlines()) == 3 and page.count("| 4.4 |") == 2


def test_bounds_of_gates_by_hand() -> None:
    """A share of 1/2 reads chunks of 2 tokens at 1.4: 1 + 0.7 + 0.1; a text of 2 tokens: 1.7 apart, 1.6 riding."""
    names = [gate_speed.GATE.format(threshold=1.0), *(f"mti(threshold=1.0) {form}" for form in gate_speed.FORMS)]
    measured = {"plain": [Measured(1.0, 0.0)], **{name: [Measured(1.7, 0.5)] for name in names}}
    costs = dict.fromkeys(gate_speed.CHUNKS, 9.0) | {1: 1.0, 2: 1.4, 3: 1.6}
    measured |= {f"c({length})": [Measured(2 * cost, 0.0)] for length, cost in costs.items()}
    text = gate_speed.tables(measured, [1.0], 2)
    assert "| 1 | 0.50 | 1.70 | 1.80 | 0.94 |" in text
    assert "| 1 | 0.50 | 1.70 | 1.70 | 1.70 | 1.70 | 1.60 | 1.06 |" in text
