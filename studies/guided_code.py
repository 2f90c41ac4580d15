"""HumanEval under plain decoding, MTI and USCD: pass@1 of greedy answers.

    python -m studies.guided_code --items 30 --allow-code-execution --out guided.jsonl

Both methods act at uncertain steps: MTI away from a short negative text, USCD away from the prompt without its
examples. The programs run in the sandbox of the benchmark. Answers in the results file are not generated again.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit import models
from logitkit.bench.execution.sampling import continue_prompts, pinned_settings
from logitkit.bench.tasks import Answer, HumanEval
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from logitkit.registry import Chain
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table
from studies.units import run_units

METHODS = {"plain": "", "mti": "mti()", "uscd": "uscd()"}
Answers = dict[tuple[str, int], dict[str, Any]]  # (method, number of the problem) -> its record


def humaneval(data: Path, items: int) -> HumanEval:
    """Return the first problems of HumanEval."""
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        return HumanEval(rows=[json.loads(line) for line in lines][:items])


def answer(
    loaded: tuple[Any, Any], task: HumanEval, method: str, numbers: Sequence[int], tokens: int
) -> list[dict[str, Any]]:
    """Return the greedy answers of a method to some problems, whether each passes, and the share of guided steps.

    Args:
        loaded: model and tokenizer.
        task: the problems.
        method: a key of `METHODS`.
        numbers: numbers of the problems, decoded together.
        tokens: largest number of tokens of an answer.
    """
    model, tokenizer = loaded
    samples = [task.samples[number] for number in numbers]
    requests = [task.request(sample, tokenizer) for sample in samples]
    with pinned_settings(model):
        call = Chain(METHODS[method]).bind(model, tokenizer, [str(request.prompt) for request in requests])
        rows = continue_prompts(call, max_new_tokens=tokens, stops=[request.stops for request in requests])
    passed = [
        task.judge(sample, Answer(text=text))["pass_at_1"] for sample, (text, _) in zip(samples, rows, strict=True)
    ]
    guided = call.trace.fired.get(method, 0.0)
    return [{"text": text, "passed": bool(one), "guided": guided} for (text, _), one in zip(rows, passed, strict=True)]


def _answer(
    loaded: PerProcess[tuple[Any, Any]], task: Any, max_new_tokens: int, unit: tuple[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """Return the answers of a method to the problems of these numbers; see `answer`."""
    return answer(loaded.value, task, *unit, max_new_tokens)


def table(answers: Answers, items: int) -> str:
    """Return pass@1 with 95 % intervals, the paired difference to plain decoding, and how often a method acted.

    Args:
        answers: a record with ``text``, ``passed`` and ``guided`` of every method and problem.
        items: number of problems.
    """
    plain = np.array([100.0 * answers["plain", n]["passed"] for n in range(items)])
    rows = []
    for method, chain in METHODS.items():
        own = [answers[method, n] for n in range(items)]
        right = np.array([100.0 * one["passed"] for one in own])
        changed = sum(one["text"] != answers["plain", n]["text"] for n, one in enumerate(own))
        cells = [
            interval_text(bootstrap_interval(right), ".1f"),
            interval_text(bootstrap_interval(right - plain), "+.1f"),
        ]
        guided = float(np.mean([one["guided"] for one in own]))
        rows.append([f"`{chain}`" if chain else method, *cells, f"{changed} of {items}", f"{guided:.2f}"])
    headings = [f"HumanEval, {items} problems", "pass@1, %", "minus plain", "answers changed", "guided steps"]
    return markdown_table(headings, rows)


def main(  # Over 40 lines: every option has a line of its own
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=2, max=164, help="Number of problems, from the first.")] = 30,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens of an answer.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Problems decoded together.")] = 6,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Execute model-written code in a restricted process.")
    ] = False,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path("guided.jsonl"),
    engine: Engine = "local",
) -> None:
    """Generate the answers that are missing in the results file, and print the table."""
    if not allow_code_execution:
        raise typer.BadParameter("the answers are programs; give --allow-code-execution to execute them in a sandbox")
    task = humaneval(data, items)
    settings = {"model": model, "max_new_tokens": max_new_tokens, "batch": batch}
    answers: Answers = {
        (record["method"], record["item"]): record for record in resumed_records(out, settings, "guided_code")
    }
    parts = [range(start, min(start + batch, items)) for start in range(0, items, batch)]
    todo = [(method, part) for part in parts for method in METHODS if any((method, n) not in answers for n in part)]

    def keep(unit: tuple[str, Sequence[int]], records: list[dict[str, Any]]) -> None:
        method, part = unit
        for number, record in zip(part, records, strict=True):
            answers[method, number] = record
            append_record(out, {"settings": settings, "method": method, "item": number, **record})

    job = functools.partial(_answer, PerProcess(functools.partial(models.load, model)), task, max_new_tokens)
    run_units(job, todo, keep, engine=engine, title="answers")
    print(table(answers, items))


if __name__ == "__main__":
    typer.run(main)
