"""Short answers: exact match of models alone and together, on TriviaQA questions, greedy.

    python -m studies.ensemble_generation --helper gemma-3-270m --items 200 --out answers.jsonl

Answers already in the results file are not generated again.
"""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from logitkit import models
from logitkit.registry.chain import Chain

SHOTS = [
    ("What is the capital of France?", "Paris"),
    ("Who wrote the play Hamlet?", "William Shakespeare"),
    ("Which planet is known as the Red Planet?", "Mars"),
]
CHAINS = {
    "vanilla gac": "ensemble(models={names}, align='gac', topk=10)",
    "vanilla gac, main 1/2": "ensemble(models={names}, align='gac', weights={half}, topk=10)",
    "core gac": "core(models={names}, align='gac')",
    "vanilla unite": "ensemble(models={names}, align='unite')",
    "core mined": "core(models={names}, align='mined')",
}


def prompt(question: str) -> str:
    shots = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in SHOTS)
    return f"{shots}Question: {question}\nAnswer:"


def bare(text: str) -> str:
    """An answer without case, articles and punctuation, as TriviaQA compares them."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ("a", "an", "the"))


def matches(text: str, golden: list[str]) -> bool:
    answer = bare(text.strip().partition("\n")[0])
    return answer in {bare(one) for one in golden}


def main(
    data: Annotated[Path, typer.Option(help="The folder of the data files.")] = Path("../shared/data"),
    main: Annotated[str, typer.Option(help="The main model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="Helpers: known models or folders.")] = None,
    items: Annotated[int, typer.Option(min=1, help="How many questions.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 8,
    out: Annotated[Path, typer.Option(help="Results; what is there is kept.")] = Path("answers.jsonl"),
    minutes: Annotated[float, typer.Option(help="Stop after so many; run again to go on.")] = math.inf,
) -> None:
    """Answer what is not in the results file yet, and print the table of all questions answered in every way."""
    names = helper or ["gemma-3-270m"]
    rows = [json.loads(line) for line in (data / "triviaqa_subsample.jsonl").read_text(encoding="utf-8").splitlines()]
    order = np.random.default_rng(0).permutation(len(rows))[:items].tolist()
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    done: dict[tuple[str, int], bool] = {(r["way"], r["item"]): r["right"] for r in map(json.loads, lines)}
    loaded = {name: models.load(name) for name in [main, *names]}
    resources: dict[str, Any] = {f"helper{place}": loaded[name][0] for place, name in enumerate(names)}
    tokenizers = {f"helper{place}": loaded[name][1] for place, name in enumerate(names)}
    half = [1.0, *[1 / len(names)] * len(names)]
    ways = {f"{name} alone": ("", loaded[name]) for name in loaded}
    ways |= {way: (text.format(names=list(resources), half=half), loaded[main]) for way, text in CHAINS.items()}
    end = time.monotonic() + 60 * minutes
    todo = [(way, order[at : at + batch]) for at in range(0, len(order), batch) for way in ways]
    todo = [(way, part) for way, part in todo if any((way, number) not in done for number in part)]
    with out.open("a", encoding="utf-8") as file:
        for way, part in track(todo, description="answers", console=Console(stderr=True), transient=True):
            if time.monotonic() > end:
                break
            text, (model, tokenizer) = ways[way]
            used = resources if text else {}
            prompts = [prompt(rows[number]["question"].strip('"')) for number in part]
            call = Chain(text).bind(model, tokenizer, prompts, tokenizers=tokenizers, **used)
            texts = call.texts(call.generate(max_new_tokens=8, do_sample=False))
            for number, answer in zip(part, texts, strict=True):
                done[way, number] = matches(answer, rows[number]["golden_answers"])
                record = {"way": way, "item": number, "right": done[way, number], "text": answer}
                file.write(json.dumps(record) + "\n")
            file.flush()
    print(table(list(ways), order, done))


def table(ways: list[str], order: list[int], done: dict[tuple[str, int], bool]) -> str:
    """Exact match with 95 % intervals, and the difference to the main model, by a paired bootstrap."""
    whole = [number for number in order if all((way, number) in done for way in ways)]
    right = np.array([[100.0 * done[way, number] for way in ways] for number in whole])
    draw = np.random.default_rng(0).integers(0, len(whole), (4000, len(whole)))
    lines = [f"| TriviaQA, {len(whole)} questions | exact match, % | over the main model |", "|---|---|---|"]
    for place, way in enumerate(ways):
        cells = []
        for values, form in ((right[:, place], ".1f"), (right[:, place] - right[:, 0], "+.1f")):
            low, high = np.percentile(values[draw].mean(-1), [2.5, 97.5])
            cells.append(f"{values.mean():{form}} [{low:{form}}, {high:{form}}]")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
