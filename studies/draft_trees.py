"""Tokens a forward and time of `goose`, prompt lookup of transformers, and plain decoding, all greedy.

Code: the model repeats a program of HumanEval with another name of its function. Summary: it continues a paragraph of a
book with a summary. The methods run in turn on each prompt, and their tokens are compared with those of plain decoding.

    python -m studies.draft_trees --data DATA
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from logitkit import models
from logitkit.processors.searches import Goose
from studies.tables import markdown_table

LOOKUP = 10  # drafted tokens, the default of transformers
BETWEEN = 7  # programs and paragraphs between two items
PARAGRAPH = range(600, 1200)  # characters


class Measured(NamedTuple):
    """One run.

    Attributes:
        tokens_a_forward: new tokens by forwards of the model, the reading of the prompt included.
        seconds: CPU seconds a new token.
        equal: whether the tokens are those of plain decoding.
    """

    tokens_a_forward: float
    seconds: float
    equal: bool


def programs(data: Path, count: int) -> list[str]:
    """Return prompts that ask for a program with another name."""
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines][::BETWEEN][:count]
    head, tail = "A program:\n```python\n", "```\nThe same program, with the function renamed to `solve`:\n```python\n"
    return [head + item["prompt"].rstrip("\n") + "\n" + item["canonical_solution"] + tail for item in items]


def paragraphs(data: Path, count: int) -> list[str]:
    """Return prompts that ask for the summary of a paragraph."""
    text = (data / "1661-0.txt").read_text(encoding="utf-8", errors="ignore").replace("\r", "")
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
    begun = time.process_time()
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=tokens, pad_token_id=0, **settings)
    seconds = time.process_time() - begun
    handle.remove()
    new = ids.shape[1] - inputs["input_ids"].shape[1]
    return Measured(new / count, seconds / new, plain is None or torch.equal(ids, plain)), ids


def table(model: Any, tokenizer: Any, prompts: dict[str, list[str]], tokens: int, budgets: list[int]) -> str:
    """Return a table of tasks and methods, as Markdown."""
    methods: dict[str, Callable[[], dict[str, Any]]] = {
        "plain": dict,
        "prompt lookup": lambda: {"prompt_lookup_num_tokens": LOOKUP},
    }
    for budget in budgets:
        methods[f"goose({budget})"] = lambda budget=budget: {"custom_generate": Goose(budget=budget)}  # type: ignore[misc]
    rows = []
    for task, texts in prompts.items():
        runs: dict[str, list[Measured]] = {name: [] for name in methods}
        for text in texts:
            inputs, plain = tokenizer(text, return_tensors="pt"), None
            for name, settings in methods.items():
                one, ids = measured(model, inputs, tokens, plain, **settings())
                plain = ids if plain is None else plain
                runs[name].append(one)
        for name, each in runs.items():
            means = (
                statistics.mean(one.tokens_a_forward for one in each),
                statistics.mean(one.seconds for one in each),
            )
            same = sum(one.equal for one in each)
            rows.append([task, name, f"{means[0]:.2f}", f"{means[1]:.3f}", f"{same} of {len(each)}"])
    return markdown_table(["task", "method", "tokens a forward", "CPU seconds a token", "equal to plain"], rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder with HumanEval.jsonl.gz and 1661-0.txt.")],
    model: Annotated[str, typer.Option(help="Known model, folder or hub id.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=1, max=30, help="Prompts of each task.")] = 2,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each run.")] = 48,
) -> None:
    """Print tokens a forward and time of goose, prompt lookup and plain decoding."""
    loaded, tokenizer = models.load(model)
    prompts = {"code": programs(data, items), "summary": paragraphs(data, items)}
    typer.echo(table(loaded, tokenizer, prompts, tokens, [16, 60]))


if __name__ == "__main__":
    typer.run(main)
