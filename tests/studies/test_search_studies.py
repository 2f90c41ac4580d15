"""The studies of searches and attributes: power sampling of words and of problems, and control of the length."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit import models
from logitkit.errors import FileFormatError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import length_control, power_problems, power_sampling
from studies.power_sampling import is_right, log_likelihoods
from studies.records import read_records
from studies.scored_items import ScoredItem


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Passages, problems and questions; every name of a model means the tiny model."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    monkeypatch.setattr(models, "load", lambda name, like=None: (tiny_model(), tokenizer))
    lines = [json.dumps({"text": f"It was day {number} end"}) + "\n" for number in range(3)]
    (tmp_path / "lambada_test.jsonl").write_text("".join(lines))
    rows = [
        {"question": f"problem {n}?", "answer": f"{n}+1=<<{n}+1={'9' * 200}>>{n + 1}\n#### {n + 1}"} for n in range(3)
    ]
    rows.insert(1, {"question": "long?", "answer": f"{'long ' * 40}#### 1"})
    (tmp_path / "gsm8k-test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.dumps({"question": f'"Who is ""{number}""?"', "golden_answers": ["a"]}) + "\n" for number in range(3)]
    (tmp_path / "triviaqa_subsample.jsonl").write_text("".join(lines))
    return tmp_path


def test_the_first_word_decides() -> None:
    """Without case and marks before it; a word that only begins alike is another one."""
    item = ScoredItem(prompt="p", options=[" Gabriel"], right=0)
    assert [is_right(item, text) for text in (' "gabriel," he', "Gabriel's", " Gab", "", " it is Gabriel")] == [
        True, False, False, False, False,
    ]  # fmt: skip


def test_likelihoods_end_at_the_end_token() -> None:
    """The padding behind an end token counts nothing."""
    ids = torch.tensor([[1, 2, 70, 257, 258], [1, 2, 70, 71, 72]])
    got = log_likelihoods(tiny_model(), ids, 2)
    with torch.no_grad():
        logp = tiny_model()(ids).logits.log_softmax(-1)
    want = [logp[0, 1, 70] + logp[0, 2, 257], logp[1, 1, 70] + logp[1, 2, 71] + logp[1, 3, 72]]
    torch.testing.assert_close(got, torch.stack(want))


def test_a_small_study_of_power_sampling(data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each method; best-of is never less likely than its samples; a second run repeats none."""
    out = data / "power.jsonl"
    power_sampling.main(data=data, items=2, rows=4, tokens=3, out=out)
    first = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in first.splitlines()[2:]] == [
        "| temperature 1", "| best of 4", "| temperature 0.5", "| smc, alpha 2", "| temperature 0.25", "| smc, alpha 4",
    ]  # fmt: skip
    for line in out.read_text().splitlines():
        found = json.loads(line)["methods"]
        assert found["best of 4"][1] >= found["temperature 1"][1] and found["smc, alpha 2"][2] <= 4
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("a run is repeated"))
    power_sampling.main(data=data, items=2, rows=4, tokens=3, out=out)
    assert capsys.readouterr().out == first
    with pytest.raises(FileFormatError, match="name another file"):
        power_sampling.main(data=data, items=2, rows=3, tokens=3, out=out)


def test_the_table_of_power_sampling_by_hand() -> None:
    """Two passages: smc is right on both, the temperature on half of the samples."""
    methods = {"temperature 1": [0.0, -3.0], "temperature 0.5": [0.5, -2.0], "smc, alpha 2": [1.0, -1.0, 3.5]}
    records = dict.fromkeys((0, 1), methods)
    line = power_sampling.table(records).splitlines()[-1]
    assert line == "| smc, alpha 2 | 100.0 [100.0, 100.0] | +50.0 [+50.0, +50.0] (temperature 0.5) | " \
        "-1.00 [-1.00, -1.00] | 3.5 |"  # fmt: skip


def test_a_small_study_of_word_problems(data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arm has its texts, particles have weights, and a second run solves nothing again."""
    out = data / "power.jsonl"
    settings: dict[str, Any] = {"data": data, "model": "tiny", "texts": 3, "tokens": 4, "batch": 2, "out": out}
    power_problems.main(items=3, **settings)
    first = capsys.readouterr().out
    records = read_records(out)
    assert len(records) == 3 and "problem" not in out.read_text(encoding="utf-8")
    for record in records:
        assert [len(right) for right in record["right"].values()] == [1, 3, 3, 3] and len(record["text"]) == 4
        assert record["different"]["greedy"] == 1 and all(0 < share <= 1 for share in record["different"].values())
        assert sum(record["weights"]) == pytest.approx(1, abs=1e-4) and 1 <= record["ess"] <= 3
    monkeypatch.setattr(models, "load", lambda name, like: pytest.fail("a problem is solved again"))
    power_problems.main(items=3, **settings)
    assert capsys.readouterr().out == first
    with pytest.raises(FileFormatError, match="name another file"):
        power_problems.main(items=3, **settings | {"texts": 2})


def test_long_problems_are_left_out(data: Path) -> None:
    """By the length of the solution without calculator marks; the numbers after the mark are the answer."""
    assert [row["question"] for row in power_problems.problems(data, 2, 100)] == ["problem 0?", "problem 1?"]
    assert len(power_problems.problems(data, 9, 100)) == 3 and len(power_problems.problems(data, 9, 1000)) == 4


def test_the_tables_of_word_problems_by_hand() -> None:
    """Two problems: particles count with their weights, and the likeliest text alone is the best of the texts."""
    right = {"greedy": [1], "temperature 1": [1, 0], power_problems.LOW: [1, 0], power_problems.SMC: [0, 1]}
    record = {
        "right": right,
        "text": {arm: "b" if arm == power_problems.SMC else "a" for arm in right},
        "different": dict.fromkeys(right, 1.0),
        "characters": dict.fromkeys(right, 9.0),
        "finished": dict.fromkeys(right, 0.5),
        "seconds": dict.fromkeys(right, 2.0),
        "weights": [0.25, 0.75],
        "ess": 1.5,
    }
    tables = power_problems.results([record, record])
    assert "| temperature 1 | 2 | 50.0 [50.0, 50.0] | 100.0 | 9 | 50 |" in tables["arms"]
    assert f"| {power_problems.BEST} | 1 | 100.0 [100.0, 100.0] |  | 1 | 0 |" in tables["arms"]
    assert "| smc, exponent 4 | 2 | 75.0 [75.0, 75.0] | 100.0 | 9 | 50 |" in tables["arms"]
    assert f"| {power_problems.HEAVIEST} | 1 | 100.0 [100.0, 100.0] |  | 1 | 0 |" in tables["arms"]
    assert "| smc, exponent 4 | 1.00 | 1.50 | 4 |" in tables["texts"]
    assert f"| smc, exponent 4 - {power_problems.BEST} | points right | 2 | -25.0 [" in tables["comparisons"]
    assert f"| {power_problems.HEAVIEST} | yes | b |" in tables["samples"]


def test_a_small_study_of_length(data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions without their marks; a second run repeats none, and the batch changes no answer."""
    assert length_control.questions(data, 2) == ['Who is "0"?', 'Who is "1"?']
    settings: dict[str, Any] = {"data": data, "items": 3, "length": 4, "tokens": 8}
    length_control.main(**settings, batch=2, out=data / "two.jsonl")
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2 + 6
    length_control.main(**settings, batch=1, out=data / "one.jsonl")
    texts = [
        [json.loads(line)["text"] for line in sorted((data / f).read_text().splitlines())]
        for f in ("one.jsonl", "two.jsonl")
    ]
    assert sorted(texts[0]) == sorted(texts[1])
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("an answer is drawn again"))
    capsys.readouterr()
    length_control.main(**settings, batch=2, out=data / "two.jsonl")
    assert capsys.readouterr().out == first


def test_the_table_of_lengths_by_hand() -> None:
    """Plain answers miss 10 tokens by 6; the other method ends at 9, one nat less likely a token."""
    plain = {"text": "", "tokens": 16, "ended": True, "logp": -1.0}
    own = {"text": "", "tokens": 9, "ended": True, "logp": -2.0}
    answers = {("plain", n): plain for n in (0, 1)} | {("own", n): own for n in (0, 1)}
    lines = length_control.table(answers, ["plain", "own"], 2, 10).splitlines()[2:]
    assert lines[0].startswith("| plain | 16 | 6.0 [6.0, 6.0] | 0 [0, 0] | -1.00")
    assert lines[1].startswith("| own | 9 | 1.0 [1.0, 1.0] | 100 [100, 100] | -2.00")
    assert lines[1].endswith("| -1.00 [-1.00, -1.00] |") and math.isclose(-2.0, own["logp"])
