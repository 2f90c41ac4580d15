"""Tokens a forward and time of `goose`, prompt lookup of transformers, and plain decoding, all greedy.

Code: the model repeats a program of HumanEval with another name of its function. Summary: it continues a paragraph of a
book with a summary. The methods run in turn on each prompt, and their tokens are compared with those of plain decoding.
Runs in the results file are not repeated.

    python -m studies.draft_trees --data DATA --items 5 --out drafts.jsonl
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

from logitkit import models
from logitkit.processors.searches import Goose
from logitkit.progress import progress_bar
from studies import command
from studies.books import book_text
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

LOOKUP = 10  # drafted tokens, the default of transformers
BETWEEN = 7  # programs and paragraphs between two items
BUDGETS = (16, 60)
PARAGRAPH = range(600, 1200)  # characters


class Measured(NamedTuple):
    """One run.

    Attributes:
        tokens_a_forward: new tokens by forwards of the model, the reading of the prompt included.
        seconds: CPU seconds a new token.
        wall: seconds of the clock a new token.
        equal: whether the tokens are those of plain decoding.
    """

    tokens_a_forward: float
    seconds: float
    wall: float
    equal: bool


def programs(data: Path, count: int) -> list[str]:
    """Return prompts that ask for a program with another name."""
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines][::BETWEEN][:count]
    head, tail = "A program:\n```python\n", "```\nThe same program, with the function renamed to `solve`:\n```python\n"
    return [head + item["prompt"].rstrip("\n") + "\n" + item["canonical_solution"] + tail for item in items]


def paragraphs(data: Path, count: int) -> list[str]:
    """Return prompts that ask for the summary of a paragraph."""
    text = book_text(data / "1661-0.txt")
    found = [part.replace("\n", " ") for part in text.split("\n\n") if len(part) in PARAGRAPH]
    return [f"{part}\n\nSummary of the text above:" for part in found[::BETWEEN][:count]]


def measured(model: Any, inputs: Any, tokens: int, plain: Any, **settings: Any) -> tuple[Measured, Any]:
    """Return the measures of one greedy run, and its ids.

    Args:
        model: the model.
        inputs: of one prompt.
        tokens: number of new tokens at most.
        plain: the ids of plain decoding; None: this run is plain decoding.
        settings: of `generate`.
    """
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = model.register_forward_hook(add)
    begun, clock = time.process_time(), time.perf_counter()
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=tokens, pad_token_id=0, **settings)
    seconds, wall = time.process_time() - begun, time.perf_counter() - clock
    handle.remove()
    new = ids.shape[1] - inputs["input_ids"].shape[1]
    return Measured(new / count, seconds / new, wall / new, plain is None or torch.equal(ids, plain)), ids


def methods(budgets: Sequence[int]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the settings of `generate` of each method."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "plain": dict,
        "prompt lookup": lambda: {"prompt_lookup_num_tokens": LOOKUP},
    }
    for budget in budgets:
        found[f"goose({budget})"] = lambda budget=budget: {"custom_generate": Goose(budget=budget)}  # type: ignore[misc]
    return found


def runs_of(model: Any, tokenizer: Any, text: str, tokens: int, budgets: Sequence[int]) -> dict[str, Measured]:
    """Return the measures of every method on one prompt, in turn."""
    inputs, plain = tokenizer(text, return_tensors="pt"), None
    runs: dict[str, Measured] = {}
    for name, settings in methods(budgets).items():
        runs[name], ids = measured(model, inputs, tokens, plain, **settings())
        plain = ids if plain is None else plain
    return runs


def table(runs: Mapping[tuple[str, int], Mapping[str, Measured]]) -> str:
    """Return a table of tasks and methods, as Markdown; times are shares of those of plain decoding, paired by prompt.

    Args:
        runs: the measures of every method, by task and number of the prompt.
    """
    rows = []
    for task in dict.fromkeys(task for task, _ in runs):
        own = [one for (other, _), one in runs.items() if other == task]
        for name in own[0]:
            per_forward = np.array([one[name].tokens_a_forward for one in own])
            cells = [interval_text(bootstrap_interval(per_forward), ".2f")]
            for of in ("wall", "seconds"):
                ratios = np.array([getattr(one[name], of) / getattr(one["plain"], of) for one in own])
                cells.append(interval_text(bootstrap_interval(ratios), ".2f"))
            same = sum(one[name].equal for one in own)
            rows.append([task, name, *cells, f"{same} of {len(own)}"])
    headings = ["task", "method", "tokens a forward", "wall time / plain", "CPU time / plain", "equal to plain"]
    return markdown_table(headings, rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder with HumanEval.jsonl.gz and 1661-0.txt.", envvar="LOGITKIT_DATA")],
    model: Annotated[str, typer.Option(help="Known model, folder or hub id.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=1, max=30, help="Prompts of each task.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each run.")] = 48,
    out: Annotated[Path, typer.Option(help="File of results; runs in it are not repeated.")] = Path("drafts.jsonl"),
) -> None:
    """Print tokens a forward and time of goose, prompt lookup and plain decoding."""
    settings = {"model": model, "tokens": tokens}
    known = {(one["task"], one["item"]): one["runs"] for one in resumed_records(out, settings, "draft_trees")}
    prompts = {"code": programs(data, items), "summary": paragraphs(data, items)}
    places = [(task, number) for task, texts in prompts.items() for number in range(len(texts))]
    todo = [place for place in places if place not in known]
    loaded, tokenizer = models.load(model) if todo else (None, None)
    with progress_bar("prompts", total=len(todo)) as bar:
        for task, number in todo:
            runs = runs_of(loaded, tokenizer, prompts[task][number], tokens, BUDGETS)
            known[task, number] = {name: one._asdict() for name, one in runs.items()}
            append_record(out, {"settings": settings, "task": task, "item": number, "runs": known[task, number]})
            bar.advance()
    runs_by_place = {place: {name: Measured(**one) for name, one in known[place].items()} for place in places}
    typer.echo(table(runs_by_place))


if __name__ == "__main__":
    command.run(main)
