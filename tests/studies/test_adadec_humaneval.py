"""The study of AdaDec on HumanEval: its answers and verdicts on the tiny model, and its tables by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.bench.tasks import HumanEval
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import adadec_humaneval, guided_answers
from studies.adadec_humaneval import ADADEC, results
from studies.guided_records import CONTROL, METHODS
from studies.records import read_records


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three problems; every name of a model means the tiny model."""
    monkeypatch.setattr(models, "load", lambda name, like=None: (tiny_model(), tiny_tokenizer()))
    problem = {"prompt": "def f():\n", "test": "def check(f):\n    assert f() == 1\n", "entry_point": "f"}
    rows = [
        {**problem, "task_id": f"HumanEval/{number}", "canonical_solution": length * " "}
        for number, length in enumerate((3, 1, 2))
    ]
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


def test_the_study_writes_judges_and_resumes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is executed without the permission, and nothing is written or judged twice."""
    executed: list[str] = []

    def judge(_: HumanEval, __: Any, answer: Any) -> dict[str, float]:
        executed.append(answer.text)
        return {"pass_at_1": 1.0}

    monkeypatch.setattr(HumanEval, "judge", judge)
    out = data / "out.jsonl"
    arguments: dict[str, Any] = {"data": data, "model": "tiny", "max_new_tokens": 3, "batch": 2, "out": out}
    adadec_humaneval.main(**arguments)
    written = read_records(out)
    assert [(record["arm"], record["item"]) for record in written] == [
        *((arm, f"HumanEval/{number}") for arm in ("", ADADEC) for number in (1, 2)),
        (ADADEC, "HumanEval/0"),
        ("", "HumanEval/0"),
    ]
    assert not executed and not any("passed" in record for record in written)
    adadec_humaneval.main(**arguments, control=True)
    first_batch = read_records(out)[len(written) :]
    plain = {record["item"]: record["text"] for record in written if record["arm"] == ""}
    assert [record["item"] for record in first_batch] == ["HumanEval/1", "HumanEval/2"]
    assert all(record["text"] == plain[record["item"]] for record in first_batch)
    written += first_batch
    monkeypatch.setattr(models, "load", lambda name, like=None: pytest.fail("an answer is written again"))
    for _ in range(2):
        adadec_humaneval.main(**arguments, allow_code_execution=True)
        assert read_records(out) == [{**record, "passed": True} for record in written]
    assert len(executed) == len({(record["item"], record["text"]) for record in written})


def test_programs_are_run(data: Path) -> None:
    """An answer is judged by the tests of its problem."""
    task = guided_answers.humaneval(data)
    assert guided_answers.passes(task, ("HumanEval/0", "    return 1"))
    assert not guided_answers.passes(task, ("HumanEval/0", "    return 2"))


def test_the_setting_is_one_that_the_other_study_judged() -> None:
    """It was chosen there, on problems of MBPP."""
    assert ADADEC in METHODS["adadec"]


def test_the_tables_by_hand() -> None:
    """Of 20 problems AdaDec alone passes 6 and plain decoding alone none: exact McNemar gives 2 / 2^6."""
    records = [
        {"arm": arm, "item": f"HumanEval/{number:02}", "half": "held-out", "settings": {"max_new_tokens": 10}}
        | {"text": f"    return {number if number < 10 else repr(arm)}", "tokens": 5, "seconds": 3.0 if arm else 2.0}
        | {"passed": number < (10 if arm else 4), "guided": 0.2 if arm else 0.0, "batch": 16}
        for arm in ("", ADADEC)
        for number in range(20)
    ]
    tables = results(records)
    assert f"| {ADADEC} - plain | points passed | 20 | +30.0 [" in tables["comparison"]
    assert "| 0.031 |" in tables["comparison"]
    assert f"| `{ADADEC}` | 10 of 20 | 6 | 0 |" in tables["changes"]
    assert f"| `{ADADEC}` | 5 | 3.0 | 1.50 |" in tables["cost"]
    assert "control" not in tables
    assert f"| `{ADADEC}` | 0 | 0 | 20 | 6 | 0 | +30.0 [" in tables["placeholders"]
    records[0]["text"] = records[1]["text"] = records[20]["text"] = "    # here\n    pass\n"
    assert f"| `{ADADEC}` | 1 | 2 | 18 | 6 | 0 | +33.3 [" in results(records)["placeholders"]
    some = [{**record, "arm": CONTROL} for record in records[:3]]
    assert results(records + some)["control"] == f"`{CONTROL}` writes 3 of 3 plain answers."
    assert "| plain | 20.0 [" in tables["judged"] and tables["programs"].startswith("HumanEval/04")
