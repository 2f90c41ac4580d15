"""The study of programs: the choice of settings and the tables, by hand and on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit import models
from logitkit.bench.tasks import MBPP
from logitkit.processors.engine.search_report import SearchReport
from logitkit.processors.engine.trace import Trace
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import guided_answers, guided_code, guided_cost
from studies.evidence import half_of
from studies.guided_records import CONTROL, METHODS, SETTINGS, chosen_settings
from studies.guided_report import every_setting, results, rounding_line
from studies.guided_run import GuidedRun
from studies.records import read_records


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six problems; every name of a model means the tiny model."""
    monkeypatch.setattr(models, "load", lambda name, like=None: (tiny_model(), tiny_tokenizer()))
    problem = {"prompt": "Add.", "code": "def f(): 1", "test_list": ["assert f() == 1"], "test_imports": []}
    rows = [{**problem, "task_id": number} for number in range(6)]
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("tune", [False, True])
def test_the_study_runs_and_resumes(data: Path, monkeypatch: pytest.MonkeyPatch, tune: bool) -> None:
    """A second run generates nothing, and AdaDec with an infinite threshold writes the plain answers.

    With ``tune``, development problems have an answer of every setting, and held-out problems one of each method.
    """
    monkeypatch.setattr(guided_code, "publish", lambda tables, page: None)
    monkeypatch.setattr(guided_code, "results", lambda records: {})
    monkeypatch.setattr(MBPP, "judge", lambda task, sample, answer: {"pass_at_1": 0.0})  # a process for each takes long
    arguments: dict[str, Any] = {"data": data, "model": "tiny", "problems": 5, "max_new_tokens": 3, "batch": 2}
    arguments |= {"out": data / "out.jsonl", "tune": tune, "control": True}
    for _ in range(2):
        guided_code.main(**arguments, allow_code_execution=True)
        records = read_records(data / "out.jsonl")
        halves = [half_of(item) for item in {record["item"] for record in records}]
        judged = 2 + len(METHODS)
        counts = {"development": 1 + len(SETTINGS) if tune else judged, "held-out": judged}
        assert len(records) == sum(counts[half] for half in halves) and set(halves) == set(counts)
    texts = {(record["arm"], record["item"]): record["text"] for record in records}
    control = {item: text for (arm, item), text in texts.items() if arm == CONTROL}
    assert len(control) == (halves.count("held-out") if tune else 5) and all(
        text == texts["", item] for item, text in control.items()
    )


@pytest.mark.parametrize("tune", [False, True])
def test_answers_are_judged_by_a_later_run(data: Path, monkeypatch: pytest.MonkeyPatch, tune: bool) -> None:
    """Nothing is executed without the permission; with ``tune`` both settings are written, as none is chosen yet."""
    executed: list[str] = []

    def judge(_: MBPP, __: Any, answer: Any) -> dict[str, float]:
        executed.append(answer.text)
        return {"pass_at_1": 1.0}

    monkeypatch.setattr(MBPP, "judge", judge)
    monkeypatch.setattr(guided_code, "publish", lambda tables, page: None)
    monkeypatch.setattr(guided_code, "results", lambda records: {})
    out = data / "out.jsonl"
    arguments: dict[str, Any] = {"data": data, "model": "tiny", "problems": 5, "max_new_tokens": 3, "out": out}
    guided_code.main(**arguments, tune=tune)
    records = read_records(out)
    assert not executed and not any("passed" in record for record in records)
    assert len(records) == 5 * (1 + (len(SETTINGS) if tune else len(METHODS)))
    monkeypatch.setattr(models, "load", lambda name, like=None: pytest.fail("an answer is written again"))
    guided_code.main(**arguments, tune=tune, allow_code_execution=True)
    judged = read_records(out)
    assert judged == [{**record, "passed": True} for record in records]
    assert sorted(executed) == sorted({(record["item"], record["text"]): record["text"] for record in records}.values())
    executed.clear()
    guided_code.main(**arguments, tune=tune, allow_code_execution=True)
    assert not executed and read_records(out) == judged


def test_verdicts_of_an_interrupted_run_are_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second program is interrupted."""
    task, verdicts = guided_answers.mbpp(data, 3), iter([{"pass_at_1": 1.0}])

    def judge(*_: Any) -> dict[str, float]:
        for verdict in verdicts:
            return verdict
        raise KeyboardInterrupt

    monkeypatch.setattr(MBPP, "judge", judge)
    records = [{"arm": "", "item": guided_answers.item_of(sample), "text": "x"} for sample in task.samples]
    run = GuidedRun(task=task, out=data / "out.jsonl", settings={}, records=records, like=None, batch=1, engine="local")
    with pytest.raises(KeyboardInterrupt):
        run.judge()
    assert [record.get("passed") for record in read_records(data / "out.jsonl")] == [True, None, None]


def test_programs_are_run(data: Path) -> None:
    """An answer is judged by the tests of its problem."""
    task = guided_answers.mbpp(data, 1)
    tokenizer, item = tiny_tokenizer(), guided_answers.item_of(task.samples[0])
    (found,) = guided_answers.answers((tiny_model(), tokenizer), task, 2, ("", (item,)))
    assert 1 <= found["tokens"] <= 2 and found["batch"] == 1
    assert not guided_answers.passes(task, (item, found["text"]))
    assert guided_answers.passes(task, (item, "def f():\n    return 1"))


def test_a_larger_run_keeps_its_problems(data: Path) -> None:
    """The order follows from a hash of the number."""
    few, many = ({guided_answers.item_of(s) for s in guided_answers.mbpp(data, count).samples} for count in (3, 5))
    assert few < many


def test_arms_take_turns_on_every_batch() -> None:
    """An arm is missing one problem; the second batch begins with the second arm."""
    records = [{"arm": "a", "item": "1"}]
    found = list(guided_answers.units(records, ["a", "b"], ["1", "2", "3"], 2))
    assert found == [("a", ("2",)), ("b", ("1", "2")), ("b", ("3",)), ("a", ("3",))]


def test_guided_steps_of_a_row_end_with_the_row() -> None:
    """The first row has one guided step of two, the second one waits at position 1; AdaDec counts over all rows."""
    trace, fired = Trace(rows=4), list[torch.Tensor]()
    guided_answers.keep_fired(trace, fired)
    trace.count_fired("mti", torch.tensor([True, True]))
    trace.count_fired("mti", torch.tensor([False, True]))
    assert guided_answers.guided_shares(trace, fired, [2, 1]) == [0.5, 1.0] and trace.fired == {"mti": 0.75}
    notes = {"compared tokens": 3, "new tokens": 12}
    trace.search = SearchReport(
        search="adadec", forwards=6, tokens=12, peak_rows=2, peak_cache_bytes=1, sequences=1, notes=notes
    )
    assert guided_answers.guided_shares(trace, [], [6, 6]) == [0.25, 0.25]


@pytest.mark.parametrize("chain", ["uscd(gate=1.0)", "mti(threshold=4.0)"])
def test_guided_steps_equal_those_of_a_recording_trace(chain: str) -> None:
    """Two prompts of different lengths, with examples to remove."""
    prompts = ['"""\nAdd.\nassert f() == 1\n"""\n', '"""\nAdd one, then.\nassert f(1) == 2\n"""\n']
    call = Chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts, trace=True)
    fired: list[torch.Tensor] = []
    guided_answers.keep_fired(call.trace, fired)
    call.generate(max_new_tokens=6, do_sample=False, eos_token_id=None)
    steps = {(step.row, step.position): bool(step.notes["fired"]) for step in call.trace.steps}
    expected = [sum(steps[row, position] for position in range(6)) / 6 for row in (0, 1)]
    assert guided_answers.guided_shares(call.trace, fired, [6, 6]) == expected and sum(expected) > 0


def _records(tuned: bool) -> list[dict[str, Any]]:
    """Records of 4 development and 12 held-out problems: MTI's second setting passes one development problem more.

    On the held-out problems USCD passes 8 that plain decoding fails, and the others are plain decoding.
    """
    records: list[dict[str, Any]] = []
    for number in range(16):
        half = "development" if number < 4 else "held-out"
        base = {"half": half, "item": f"MBPP/{number:02}", "tokens": 10, "seconds": 2.0, "guided": 0.5, "batch": 4}
        base["settings"] = {"max_new_tokens": 10}
        judged = [group[tuned and method == "mti"] for method, group in METHODS.items()]
        for arm in ["", *(SETTINGS if tuned and number < 4 else judged)]:
            passed = (arm == "uscd()" and 4 <= number < 12) or (arm == METHODS["mti"][1] and number == 0)
            records.append({**base, "arm": arm, "text": f"\n{passed}", "passed": passed})
    return [*records, {**records[0], "arm": CONTROL}]


def test_settings_are_chosen_on_development_problems() -> None:
    """Of equal settings the first one; what held-out problems say does not count."""
    first = {method: group[0] for method, group in METHODS.items()}
    assert chosen_settings(_records(tuned=True)) == first | {"mti": METHODS["mti"][1]}
    assert chosen_settings(_records(tuned=False)) == first


def test_the_tables_by_hand() -> None:
    """Eight gains and no loss: McNemar's p is 2 / 2**8, and five comparisons make it 0.039."""
    tables = results(_records(tuned=True))
    lines = tables["comparisons"].splitlines()
    assert lines[2].startswith("| uscd() - plain | points passed | 12 | +66.7 [") and "| 0.039 |" in lines[2]
    assert "| +0.0 [+0.0, +0.0] | 1.000 | none | impossible |" in lines[3]
    assert "| `uscd()` | 8 of 12 | 8 | 0 |" in tables["changes"]
    assert "| `mti(threshold=2.0)` | 1 of 4 | 1 | 0.500 |" in tables["development"]
    assert tables["judged"].startswith("| 12 held-out problems |") and "| 10 | 12 |" in tables["judged"]
    assert tables["programs"].startswith("MBPP/04, `uscd()` (passes, plain does not)")


def test_every_setting_by_hand() -> None:
    """MTI's second setting loses the eight problems that plain decoding passes; six settings make 2 / 2**8 0.047."""
    passing: dict[str, Any] = {"passed": True, "tokens": 9, "settings": {"max_new_tokens": 10}}
    arms = {setting: [passing] * 8 for setting in ("", *SETTINGS)}
    arms[METHODS["mti"][1]] = [passing | {"passed": False, "tokens": 10}] * 8
    lines = every_setting(arms).splitlines()
    assert lines[2] == "| `uscd()` | +0.0 [+0.0, +0.0] | 1.000 | 0 | 0 | 0 |"
    assert lines[5] == "| `mti(threshold=2.0)` | -100.0 [-100.0, -100.0] | 0.047 | 0 | 8 | 8 |"


def test_answers_without_a_guided_step_by_hand() -> None:
    """One of two such answers has another text, and the same verdict."""
    plain = [{"arm": "", "item": item, "text": "a", "passed": True, "guided": 0.0} for item in "123"]
    own = [
        {**one, "arm": "mti()", "text": text, "guided": share}
        for one, text, share in zip(plain, "abc", (0.0, 0.0, 0.5), strict=True)
    ]
    assert rounding_line([*plain, *own]) == (
        "Answers in which a method never acted: 2. Their text differs from the plain one, by rounding alone: 1."
        " Their verdict differs: 0."
    )


def test_the_cost_by_hand() -> None:
    """MTI takes 3 seconds where the others take 2."""
    slower = [{**r, "seconds": 3.0} if r["arm"] == "mti()" else r for r in _records(tuned=False)]
    cost = guided_cost.results(slower)
    assert cost["cost"].startswith("| 16 problems |") and "| `mti()` | 10 | 3.0 | 1.50 |" in cost["cost"]
    assert cost["control"].endswith("writes 1 of 1 plain answers.")


def test_without_tuning_all_problems_are_judged() -> None:
    """Except one without an answer of AdaDec."""
    records = [r for r in _records(tuned=False) if (r["arm"], r["item"]) != (METHODS["adadec"][0], "MBPP/01")]
    tables = results(records)
    assert "development" not in tables and "| uscd() - plain | points passed | 15 |" in tables["comparisons"]
    assert tables["judged"].startswith("| 15 problems |")
