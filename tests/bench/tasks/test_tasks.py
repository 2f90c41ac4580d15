"""Tasks: their requests and metrics, on examples computed by hand and on the real data."""

from __future__ import annotations

import itertools
import sys
import types
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from logitkit.bench.config import datasource
from logitkit.bench.tasks import GSM8K, Answer, Choice, Cloze, Infilling, Span, cut_passages, pass_at
from logitkit.bench.tasks.text_tasks import number_in
from logitkit.errors import DataError, FileFormatError, LogitkitError, ParameterError
from logitkit.registry import Scored, TaskSpec, default_registry
from logitkit.registry.laws import tiny_tokenizer


def scored(*totals: float, size: int = 1, greedy: bool = True) -> Answer:
    """Return an answer with one option per log-likelihood."""
    return Answer(options=tuple(Scored(logp=(total,), greedy=(greedy,), bytes=size) for total in totals))


def test_pass_at_k_by_enumeration() -> None:
    """pass@k equals the share of all choices of k answers that contain a right answer."""
    for answers, right, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if right <= answers and k <= answers:
            chosen = list(itertools.combinations([1] * right + [0] * (answers - right), k))
            assert pass_at(k, answers, right) == pytest.approx(sum(map(any, chosen)) / len(chosen))


def test_pass_at_k_of_a_sample() -> None:
    """With two right answers of five, pass@1 is 2/5, pass@5 is 1, and pass@10 is not reported."""
    task = default_registry().describe_task("humaneval").build([], {})
    assert task.combine([{"pass_at_1": p} for p in (1.0, 0.0, 0.0, 1.0, 0.0)]) == {
        "pass_at_1": pytest.approx(0.4),
        "pass_at_5": 1.0,
    }


def test_a_choice_by_hand() -> None:
    """The long option wins per byte and the short one in total; an impossible option has an infinite loss."""
    row = {"id": "q", "question": "Why?", "choices": {"text": ["no", "because"], "label": ["A", "B"]}, "answerKey": "B"}
    task = Choice(rows=[row])
    (sample,) = task.samples
    request = task.request(sample, None)
    assert request.prompt == "Question: Why?\nAnswer:" and request.options == (" no", " because")
    options = Answer(
        options=(Scored(logp=(-3.0,), greedy=(True,), bytes=3), Scored(logp=(-4.0,), greedy=(True,), bytes=8))
    )
    assert task.judge(sample, options) == {"accuracy": 1.0, "accuracy_sum": 0.0, "loss": 0.5}
    assert task.judge(sample, scored(-1.0, -float("inf")))["loss"] is None
    assert task.judge(sample, scored(-float("inf"), -float("inf")))["accuracy"] == 0.0
    with pytest.raises(FileFormatError, match="row 0 must have question"):
        Choice(rows=[{**row, "answerKey": "C"}])


def test_a_cloze_by_hand() -> None:
    """The last word is predicted whole or after its first letters, and at least one letter is predicted."""
    (whole,) = Cloze(rows=[{"text": "it was a dog"}]).samples
    assert whole.data == {"before": "it was a", "word": " dog"}
    (cut,) = Cloze(rows=[{"text": "it was a dog"}], letters=2).samples
    (last,) = Cloze(rows=[{"text": "it was a dog"}], letters=9).samples
    assert cut.data == last.data == {"before": "it was a do", "word": "g"}
    task = Cloze(rows=[{"text": "a b"}])
    assert task.judge(task.samples[0], scored(-2.0)) == {"accuracy": 1.0, "loss": 2.0, "impossible": 0.0}
    with pytest.raises(FileFormatError, match="two words"):
        Cloze(rows=[{"text": "one"}])


@pytest.mark.parametrize(
    ("text", "number"),
    [("so #### 1,234 and 5", "1234"), ("is 3 or $4.50.", "4.5"), ("#### -7", "-7"), ("none", None), ("18.0", "18")],
)
def test_the_number_of_an_answer(text: str, number: str | None) -> None:
    """The number after #### counts, without that mark the last number; 18 equals 18.0."""
    assert number_in(text) == (None if number is None else Decimal(number))


def test_solved_examples_are_not_samples() -> None:
    """The last rows are solved examples in the prompt; the other rows are the samples."""
    rows = [{"question": f"q{n}", "answer": f"a #### {n}"} for n in range(4)]
    task = GSM8K(rows=rows, shots=1)
    assert len(task.samples) == 3
    asked = task.request(task.samples[0], None)
    assert asked.prompt == "Question: q3\nAnswer: a #### 3\n\nQuestion: q0\nAnswer:"
    assert task.judge(task.samples[1], Answer(text=" it is 1."))["exact_match"] == 1.0
    chat = GSM8K(rows=rows, chat=True).request(task.samples[0], None)
    assert chat.prompt[0]["role"] == "user"  # type: ignore[index]


def test_passages_by_hand() -> None:
    """Short rows are joined to passages, and the licence texts of Project Gutenberg are left out."""
    rows = [
        {"text": text} for text in ("licence", "*** START OF THE BOOK", "a b c d", "e f", "*** END OF THE BOOK", "l")
    ]
    assert [s.data for s in cut_passages(rows, field="text", words=3, after=2)] == [
        {"before": "a b c", "after": " d e"}
    ]
    with pytest.raises(FileFormatError, match="must hold 50 words"):
        cut_passages(rows, field="text", words=40, after=10)


def test_the_form_of_an_infilling_prompt_depends_on_the_tokenizer() -> None:
    """Without fill-in-the-middle tokens the prompt is the text before the span, and the text after it stops it."""
    row = {
        "task_id": "t",
        "prompt": "def f():\n    return ",
        "suffix": "\n\nx = 1",
        "test": "def check(f): assert f() == 2",
    }
    row |= {"entry_point": "f", "canonical_solution": "1 + 1"}
    task = Infilling(rows=[row])
    (sample,) = task.samples
    request = task.request(sample, tiny_tokenizer())
    assert request.prompt == row["prompt"] and request.stops[0] == "\n\nx = 1"
    assert task.judge(sample, Answer(text="2")) == {"pass_at_1": 1.0, "exact_match": 0.0}
    assert task.judge(sample, Answer(text=" 1 + 1"))["exact_match"] == 1.0
    assert task.judge(sample, Answer(text="3"))["pass_at_1"] == 0.0
    knows = types.SimpleNamespace(get_vocab=lambda: dict.fromkeys(("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), 0))
    assert task.request(sample, knows).prompt == ("<fim_prefix>def f():\n    return <fim_suffix>\n\nx = 1<fim_middle>")
    assert Span(rows=[row]).request(sample, None).options == ("1 + 1",)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "answer"),
    [("humaneval", "canonical_solution"), ("mbpp", "code"), ("humaneval_infilling", "canonical_solution")],
)
def test_the_solutions_of_the_data_pass(name: str, answer: str, shared_data: Path) -> None:
    """Ten reference solutions of each data set pass, and an empty answer fails."""
    spec = default_registry().describe_task(name)
    rows = datasource.rows(spec, str(shared_data / spec.data), ".")
    task = spec.build(rows, {})
    for sample, row in list(zip(task.samples, rows, strict=True))[::17][:10]:
        assert task.judge(sample, Answer(text=row[answer]))["pass_at_1"] == 1.0
        assert task.judge(sample, Answer(text=""))["pass_at_1"] == 0.0


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k", 1319), ("arc", 294), ("lambada", 5153), ("passages", 700), ("style", 40), ("mbpp", 427)],
)
def test_the_data_are_read(name: str, count: int, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data are found in LOGITKIT_DATA, and every sample has a request."""
    monkeypatch.setenv("LOGITKIT_DATA", str(shared_data))
    spec = default_registry().describe_task(name)
    task = spec.build(datasource.rows(spec, None, "."), {})
    assert len(task.samples) >= count and len({sample.id for sample in task.samples}) == len(task.samples)
    assert all(task.request(sample, tiny_tokenizer()).prompt for sample in task.samples[:20])
    assert spec.mode == "generate" or all(task.request(s, None).options for s in task.samples)


def test_sentences_are_part_of_logitkit() -> None:
    """60 different sentences whose last word has at least four letters, whole or after its first two letters."""
    for name, letters in (("sentences", 0), ("cut_sentences", 2)):
        spec = default_registry().describe_task(name)
        task = spec.build(datasource.rows(spec, None, "."), {})
        asked = [sample.data["word"].strip() for sample in task.samples]
        whole = [(sample.data["before"] + sample.data["word"]).split()[-1] for sample in task.samples]
        assert len(task.samples) == len({sample.hash for sample in task.samples}) == 60
        assert all(len(word) >= 4 and word[letters:] == part for word, part in zip(whole, asked, strict=True))
    own = spec.build([{"text": "one word"}], {"letters": 1})
    assert [sample.data for sample in own.samples] == [{"before": "one w", "word": "ord"}]


def test_missing_data_are_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error lists every place that was searched, and how to provide the data."""
    monkeypatch.setenv("LOGITKIT_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    spec = default_registry().describe_task("gsm8k")
    with pytest.raises(DataError) as caught:
        datasource.rows(spec, None, "beside")
    message = str(caught.value)
    assert "beside/gsm8k-test.jsonl" in message and str(tmp_path / "gsm8k-test.jsonl") in message
    assert "pass --data FOLDER, or set LOGITKIT_DATA, to name a folder that holds gsm8k-test.jsonl" in message
    assert "the tasks sentences and cut_sentences need no data" in message
    assert "datasets is not installed" in message and "pip install 'logitkit[hub]'" in message


def test_the_hub_is_the_last_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is asked for name, configuration and split, but only if no file holds the data."""
    asked: list[Any] = []

    def load_dataset(name: str, configuration: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((name, configuration, split))
        return [{"question": "q", "answer": "#### 1"}]

    monkeypatch.delenv("LOGITKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    spec = default_registry().describe_task("gsm8k")
    assert datasource.rows(spec, None, str(tmp_path)) == [{"question": "q", "answer": "#### 1"}]
    assert asked == [("openai/gsm8k", "main", "test")]
    (tmp_path / spec.data).write_text('{"question": "own", "answer": "#### 2"}\n')
    assert datasource.rows(spec, None, str(tmp_path))[0]["question"] == "own" and len(asked) == 1


def test_a_file_in_another_form_is_refused(tmp_path: Path) -> None:
    """A file that is not in its format or encoding is refused with the expected format."""
    (tmp_path / "a.jsonl").write_text("{}\n[")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    spec = default_registry().describe_task("free_text")
    with pytest.raises(FileFormatError, match="must be JSON lines"):
        datasource.rows(spec, "a.jsonl", str(tmp_path))
    with pytest.raises(FileFormatError, match="set the task's encoding"):
        datasource.rows(spec, "b.txt", str(tmp_path))
    assert datasource.rows(spec, "b.txt", str(tmp_path), encoding="cp1252") == [{"text": "café"}]


def test_a_task_of_a_plugin_is_checked() -> None:
    """Name, target and parameters of a TaskSpec are checked; ``rows`` is not one of its parameters."""
    fields = {"summary": "s", "source": "you"}
    with pytest.raises(ParameterError, match="snake_case"):
        TaskSpec(name="No", target="a:b", **fields)
    with pytest.raises(ParameterError, match="'generate' or 'loglikelihood'"):
        TaskSpec(name="no", target="a:b", mode="guess", **fields)  # type: ignore[arg-type]
    with pytest.raises(LogitkitError, match=r"subclass logitkit\.bench\.Task"):
        _ = TaskSpec(name="no", target="decimal:Decimal", **fields).factory
    spec = default_registry().describe_task("gsm8k")
    assert sorted(spec.model.model_fields) == ["chat", "shots"]
    with pytest.raises(ParameterError, match="shots must be a whole number >= 0"):
        spec.check({"shots": -1})
