"""Probability of the answer that a context states, under CAD, AdaCAD and COIECD, from two forwards a question.

    python -m studies.context_answers --items 300 --out context_answers.jsonl

A context states a wrong answer (conflict) or the right one (agreement). The stated answer is read with the context and
without; each method combines the two streams. Reported are the share of questions where greedy decoding begins with the
stated answer, and the log-loss of that answer. The strength of every method is chosen among the same five on the
development questions, by the loss of answers in conflict. Questions in the results file are not read again, and a run
with more items adds the missing ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from transformers import DynamicCache

from logitkit import models
from logitkit.processors.contrast import adacad, cad, coiecd
from logitkit.processors.transformers_api import with_cache
from logitkit.progress import progress_bar
from studies import command
from studies.context_conflict import SHORT_ANSWER, Conflict, conflicts, context_of
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table

METHODS: dict[str, Callable[..., Tensor]] = {"cad": cad, "adacad": adacad, "coiecd": coiecd}
PUBLISHED = {"cad": 0.5, "adacad": 1.0, "coiecd": 1.0}
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
SITUATIONS = ("conflict", "agreement")
Records = Sequence[dict[str, Any]]


class AnswerReader:
    """Reads answers after prompts that begin with the same examples, which are read once.

    Args:
        model, tokenizer: the model.
        prompts: prompts of several items, from which the common beginning is found.
    """

    def __init__(self, model: Any, tokenizer: Any, prompts: Sequence[str]) -> None:
        self.model, self.tokenizer = model, tokenizer
        rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        common = next(n for n, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1)
        self.beginning = rows[0][:common]
        self.cache = DynamicCache()
        with torch.no_grad():
            model(torch.tensor([self.beginning]), logits_to_keep=1, **with_cache(self.cache))

    @torch.no_grad()
    def logits(self, prompts: Sequence[str], answer: str) -> tuple[list[Tensor], Tensor]:
        """Return the logits before each token of an answer after each prompt, ``[tokens, vocab]``, and its tokens."""
        tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        found = []
        for prompt in prompts:
            ids = self.tokenizer(prompt)["input_ids"]
            if ids[: len(self.beginning)] != self.beginning:
                raise ValueError(f"context_answers: prompt must begin with the examples, got {prompt!r}")
            row = torch.tensor([[*ids[len(self.beginning) :], *tokens]])
            cache = copy.deepcopy(self.cache)
            logits = self.model(row, logits_to_keep=len(tokens) + 1, **with_cache(cache)).logits
            found.append(logits[0, :-1].float())
        return found, torch.tensor(tokens)


def read_item(reader: AnswerReader, item: Conflict) -> dict[str, dict[str, tuple[float, bool]]]:
    """Return for each situation and method the log-loss of the stated answer, and whether greedy decoding writes it."""
    right = next(answer for answer in item.golden if SHORT_ANSWER.fullmatch(answer))
    results: dict[str, dict[str, tuple[float, bool]]] = {}
    for situation, stated in zip(SITUATIONS, (item.swapped, right), strict=True):
        prompt = item.prompt.replace(item.context, context_of(item.question, stated))
        without = item.prompt.replace(item.context, "")
        (p, q), tokens = reader.logits([prompt, without], f" {stated}")
        scores = {"plain": p, "no context": q}
        scores |= {f"{name} {a:g}": rule(p, q, alpha=a) for name, rule in METHODS.items() for a in STRENGTHS}
        results[situation] = {name: judged_answer(score, tokens) for name, score in scores.items()}
    return results


def judged_answer(scores: Tensor, tokens: Tensor) -> tuple[float, bool]:
    """Return the log-loss of an answer in nats, and whether each of its tokens is the most probable one.

    Args:
        scores: scores before each token, ``[tokens, vocab]``.
        tokens: ids of the answer, ``[tokens]``.

    Examples:
        >>> judged_answer(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
        (0.980829, True)
    """
    loss = -scores.log_softmax(-1).gather(1, tokens[:, None]).sum()
    return round(float(loss), 6), bool((scores.argmax(-1) == tokens).all())


def chosen_strengths(records: Records) -> dict[str, float]:
    """Return for each method the strength with the lowest loss of answers in conflict on the development questions."""
    development = [record for record in records if record["half"] == "development"]
    return {
        name: min(STRENGTHS, key=lambda a: float(np.mean(_values(development, "conflict", f"{name} {a:g}")[0])))
        for name in METHODS
    }


def _values(records: Records, situation: str, method: str) -> tuple[Any, Any]:
    """Return the losses of a method, and 100 for each answer that greedy decoding writes, else 0."""
    pairs = [record["results"][situation][method] for record in records]
    return np.array([loss for loss, _ in pairs]), np.array([100.0 * hit for _, hit in pairs])


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    held_out = [record for record in records if record["half"] == "held-out"]
    chosen = {name: f"{name} {a:g}" for name, a in chosen_strengths(records).items()}
    published = {name: f"{name} {a:g}" for name, a in PUBLISHED.items()}
    methods = ["no context", "plain", *dict.fromkeys([*chosen.values(), *published.values()])]
    rows = []
    for method in methods:
        note = [word for word, names in (("chosen", chosen), ("published", published)) if method in names.values()]
        row = [method, ", ".join(note)]
        for situation in SITUATIONS:
            loss, hits = _values(held_out, situation, method)
            row += [interval_text(bootstrap_interval(hits), ".1f"), interval_text(bootstrap_interval(loss), ".3f")]
        rows.append(row)
    headings = ["method and strength", "strength"]
    headings += [f"{s}: {m}" for s in SITUATIONS for m in ("written, %", "loss, nats an answer")]
    return {
        "answers": f"{len(held_out)} held-out questions.\n\n{markdown_table(headings, rows)}",
        "comparisons": comparison_table(_compared(held_out, chosen)),
        "development": _development_table([record for record in records if record["half"] == "development"]),
    }


def _compared(records: Records, chosen: dict[str, str]) -> list[PairedDifferences]:
    """Return the comparisons of chosen strengths: each method with plain decoding, AdaCAD and COIECD with CAD."""
    pairs = [(name, "plain") for name in chosen.values()]
    pairs += [(chosen[name], chosen["cad"]) for name in ("adacad", "coiecd")]
    compared = []
    for situation in SITUATIONS:
        for method, other in pairs:
            (loss, hits), (other_loss, other_hits) = (_values(records, situation, m) for m in (method, other))
            name = f"{situation}: {method} - {other}"
            compared.append(PairedDifferences(name, "points written", hits - other_hits))
            compared.append(PairedDifferences(name, "nats an answer", loss - other_loss))
    return compared


def _development_table(records: Records) -> str:
    """Return the mean losses by strength on the development questions."""
    rows = []
    for name in METHODS:
        losses = [_values(records, "conflict", f"{name} {a:g}")[0] for a in STRENGTHS]
        rows.append([name, *(interval_text(bootstrap_interval(loss), ".3f") for loss in losses)])
    headings = [f"loss in conflict, {len(records)} development questions", *(f"{a:g}" for a in STRENGTHS)]
    return markdown_table(headings, rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=20, help="Number of questions.")] = 300,
    out: Annotated[Path, typer.Option(help="File of results; questions in it are not read again.")] = Path(
        "context_answers.jsonl"
    ),
    page: Page = None,
) -> None:
    """Read the questions that are missing in the results file, and print the tables of all questions in it."""
    questions = conflicts(read_records(data / "triviaqa_subsample.jsonl"), items)
    settings = {"model": model, "strengths": list(STRENGTHS)}
    records = resumed_records(out, settings, "context_answers")
    done = {record["item"] for record in records}
    todo = [item for item in questions if item_id(item.question) not in done]
    if todo:
        reader = AnswerReader(
            *models.load(model),
            [item.prompt for item in questions[:2]] + [questions[0].prompt.replace(questions[0].context, "")],
        )
        with progress_bar("questions", total=len(todo)) as bar:
            for item in todo:
                record = {"settings": settings, "item": item_id(item.question), "half": half_of(item.question)}
                records.append({**record, "results": read_item(reader, item)})
                append_record(out, records[-1])
                bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
