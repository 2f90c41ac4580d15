"""Answers to TriviaQA questions whose context names a wrong answer: plain decoding, CAD, AdaCAD and COIECD.

    python -m studies.context_conflict --items 30 --out conflict.jsonl

The context of a question states the answer to another question. A method follows the context if it writes that answer,
and the memory of the model if it writes a right one. Answers in the results file are not generated again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit import models
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from logitkit.registry import Chain
from studies import command
from studies.ensemble_generation import SHOTS, matches, normalised
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table
from studies.units import run_units

METHODS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "cad": {"mode": "cad"},
    "adacad": {"mode": "adacad"},
    "coiecd": {"mode": "coiecd"},
}
SHORT_ANSWER = re.compile(r"[A-Za-z]+( [A-Za-z]+){0,2}")


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A question whose context states a wrong answer.

    Attributes:
        question: the question.
        golden: its right answers.
        swapped: the answer in the context, a right answer to another question.
    """

    question: str
    golden: Sequence[str]
    swapped: str

    @property
    def context(self) -> str:
        """The line of the prompt that states the swapped answer."""
        return context_of(self.question, self.swapped)

    @property
    def prompt(self) -> str:
        """Solved examples, whose contexts are right, then the context and the question."""
        shots = [f"{context_of(*shot)}Question: {shot[0]}\nAnswer: {shot[1]}\n\n" for shot in SHOTS]
        return f"{''.join(shots)}{self.context}Question: {self.question}\nAnswer:"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An answer of a method: whether it is that of the context, and whether it is a right one."""

    context: bool
    memory: bool


Answers = dict[tuple[str, int], Judged]  # (method, number of the item) -> the judged answer


def context_of(question: str, answer: str) -> str:
    r"""Return the line of a prompt that states an answer.

    >>> context_of("Who wrote the play Hamlet?", "Molly")
    'Context: An encyclopedia was asked "Who wrote the play Hamlet?" and states that the answer is Molly.\n'
    """
    return f'Context: An encyclopedia was asked "{question}" and states that the answer is {answer}.\n'


def conflicts(rows: Sequence[Mapping[str, Any]], items: int) -> list[Conflict]:
    """Return questions in an order drawn with the seed 0, each with the answer to the next one.

    Questions without an answer of one to three words of ASCII letters are left out, so that a context reads as English.

    Args:
        rows: rows with ``question`` and ``golden_answers``, at least two usable ones.
        items: number of questions, at most.
    """
    shuffled = [rows[number] for number in np.random.default_rng(0).permutation(len(rows))]
    usable = [(row, short) for row in shuffled if (short := _short_answer(row["golden_answers"])) is not None]
    found: list[Conflict] = []
    for place, (row, _) in enumerate(usable):
        known = {normalised(answer) for answer in row["golden_answers"]}
        others = (short for _, short in usable[place + 1 :] + usable[:place] if normalised(short) not in known)
        swapped = next(others, None)
        if swapped is not None and len(found) < items:
            question = str(row["question"]).strip('"')
            found.append(Conflict(question=question, golden=row["golden_answers"], swapped=swapped))
    return found


def _short_answer(golden: Sequence[str]) -> str | None:
    """Return the first answer of one to three words of ASCII letters; None: there is none."""
    return next((answer for answer in golden if SHORT_ANSWER.fullmatch(answer)), None)


def generate_answers(loaded: tuple[Any, Any], method: str, items: Sequence[Conflict]) -> list[str]:
    """Return the greedy answers of a method to a batch of questions."""
    parameters = METHODS[method]
    steps = (
        [] if parameters is None else [{"name": "cad", "params": {**parameters, "context": [i.context for i in items]}}]
    )
    call = Chain(steps).bind(*loaded, [item.prompt for item in items])
    return call.texts(call.generate(max_new_tokens=12, do_sample=False))


def _answers(
    loaded: PerProcess[tuple[Any, Any]], questions: Sequence[Conflict], unit: tuple[str, Sequence[int]]
) -> list[str]:
    """Return the answers of a method to the questions of these numbers."""
    method, numbers = unit
    return generate_answers(loaded.value, method, [questions[number] for number in numbers])


def judged(item: Conflict, text: str) -> Judged:
    r"""Return whether the first line of a text is the answer of the context, and whether it is a right one.

    >>> item = Conflict(question="Who wrote the play Hamlet?", golden=["Shakespeare"], swapped="Molly")
    >>> judged(item, " molly.\nQuestion:")
    Judged(context=True, memory=False)
    """
    return Judged(context=matches(text, [item.swapped]), memory=matches(text, list(item.golden)))


def table(answers: Answers, items: int) -> str:
    """Return the share of each kind of answer with 95 % intervals, and the paired difference to plain decoding.

    Args:
        answers: an answer of every method to every item.
        items: number of items.
    """
    shares = {
        (method, kind): np.array([100.0 * getattr(answers[method, n], kind) for n in range(items)])
        for method in METHODS
        for kind in ("context", "memory")
    }
    rows = []
    for method in METHODS:
        follows, right = shares[method, "context"], shares[method, "memory"]
        gain = bootstrap_interval(follows - shares["plain", "context"])
        cells = [interval_text(bootstrap_interval(follows), ".1f"), interval_text(gain, "+.1f")]
        rows.append([method, *cells, interval_text(bootstrap_interval(right), ".1f")])
    headings = [f"TriviaQA, {items} questions", "answer of the context, %", "minus plain", "right answer, %"]
    return markdown_table(headings, rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=2, help="Number of questions.")] = 30,
    batch: Annotated[int, typer.Option(min=1, help="Questions decoded together.")] = 10,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path(
        "conflict.jsonl"
    ),
    engine: Engine = "local",
) -> None:
    """Generate the answers that are missing in the results file, and print the table."""
    questions = conflicts(read_records(data / "triviaqa_subsample.jsonl"), items)
    settings = {"model": model, "items": len(questions)}
    answers: Answers = {}
    for record in resumed_records(out, settings, "context_conflict"):
        answers[record["method"], record["item"]] = Judged(context=record["context"], memory=record["memory"])
    parts = [range(start, min(start + batch, len(questions))) for start in range(0, len(questions), batch)]
    todo = [(method, part) for part in parts for method in METHODS if any((method, n) not in answers for n in part)]

    def keep(unit: tuple[str, Sequence[int]], texts: list[str]) -> None:
        method, part = unit
        for number, text in zip(part, texts, strict=True):
            one = answers[method, number] = judged(questions[number], text)
            append_record(out, {"settings": settings, "method": method, "item": number, "text": text, **asdict(one)})

    job = functools.partial(_answers, PerProcess(functools.partial(models.load, model)), questions)
    run_units(job, todo, keep, engine=engine, title="answers")
    print(table(answers, len(questions)))


if __name__ == "__main__":
    command.run(main)
