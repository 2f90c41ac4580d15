"""Exact match of short greedy answers to TriviaQA questions, by models alone and by ensembles.

    python -m studies.ensemble_generation --helper gemma-3-270m --items 200 --out answers.jsonl

Answers in the results file are not generated again.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.ensemble_members import EnsembleMembers
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table

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
Answers = dict[tuple[str, int], bool]  # (method, number of the question) -> whether the answer is right


def prompt_of(question: str) -> str:
    """Return the prompt of a question, with solved examples."""
    shots = "".join(f"Question: {example}\nAnswer: {answer}\n\n" for example, answer in SHOTS)
    return f"{shots}Question: {question}\nAnswer:"


def normalised(text: str) -> str:
    """Return an answer without case, articles and punctuation, as TriviaQA compares answers."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ("a", "an", "the"))


def matches(text: str, golden: list[str]) -> bool:
    """Return whether the first line of a text equals one of the golden answers."""
    answer = normalised(text.strip().partition("\n")[0])
    return answer in {normalised(golden_answer) for golden_answer in golden}


def methods_of(members: EnsembleMembers) -> dict[str, tuple[str, str]]:
    """Return for each method its chain and the name of its generating model."""
    alone = {f"{name} alone": ("", name) for name in members.loaded}
    names, half = list(members.resources), members.half_weights
    ensembles = {method: (text.format(names=names, half=half), members.main) for method, text in CHAINS.items()}
    return alone | ensembles


def table(methods: list[str], order: list[int], answers: Answers) -> str:
    """Return the exact match with 95 % intervals, and the paired differences to the main model.

    Args:
        methods: names of the methods, the main model alone first.
        order: numbers of the questions.
        answers: the answers; questions that some method has not answered are left out.
    """
    complete = [number for number in order if all((method, number) in answers for method in methods)]
    right = np.array([[100.0 * answers[method, number] for method in methods] for number in complete])
    rows = []
    for place, method in enumerate(methods):
        match = bootstrap_interval(right[:, place])
        difference = bootstrap_interval(right[:, place] - right[:, 0])
        rows.append([method, interval_text(match, ".1f"), interval_text(difference, "+.1f")])
    headings = [f"TriviaQA, {len(complete)} questions", "exact match, %", "minus the main model"]
    return markdown_table(headings, rows)


def generate_answers(members: EnsembleMembers, method: str, questions: list[str]) -> list[str]:
    """Return the greedy answers of a method to a batch of questions."""
    chain, name = methods_of(members)[method]
    model, tokenizer = members.loaded[name]
    resources: dict[str, Any] = members.resources if chain else {}
    prompts = [prompt_of(question.strip('"')) for question in questions]
    call = Chain(chain).bind(model, tokenizer, prompts, tokenizers=members.tokenizers, **resources)
    return call.texts(call.generate(max_new_tokens=8, do_sample=False))


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.")] = Path("../shared/data"),
    main: Annotated[str, typer.Option(help="Name of the main model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="A helper: a known model or a folder; repeatable.")] = None,
    items: Annotated[int, typer.Option(min=1, help="Number of questions.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Questions decoded together.")] = 8,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path("answers.jsonl"),
    minutes: Annotated[float, typer.Option(help="Stop after this time; run the command again to resume.")] = math.inf,
) -> None:
    """Generate the answers that are missing in the results file, and print the table of all complete questions."""
    rows = read_records(data / "triviaqa_subsample.jsonl")
    order = np.random.default_rng(0).permutation(len(rows))[:items].tolist()
    known = resumed_records(out, None, "ensemble_generation")
    answers: Answers = {(record["method"], record["item"]): record["right"] for record in known}
    members = EnsembleMembers.load(main, helper or ["gemma-3-270m"])
    methods = list(methods_of(members))
    batches = [(method, order[start : start + batch]) for start in range(0, len(order), batch) for method in methods]
    todo = [(method, part) for method, part in batches if any((method, number) not in answers for number in part)]
    end = time.monotonic() + 60 * minutes
    with progress_bar("answers", total=len(todo)) as bar:
        for method, part in todo:
            if time.monotonic() > end:
                break
            texts = generate_answers(members, method, [rows[number]["question"] for number in part])
            for number, text in zip(part, texts, strict=True):
                right = answers[method, number] = matches(text, rows[number]["golden_answers"])
                append_record(out, {"method": method, "item": number, "right": right, "text": text})
            bar.advance()
    typer.echo(table(methods, order, answers))


if __name__ == "__main__":
    command.run(main)
