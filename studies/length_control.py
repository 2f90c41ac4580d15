"""How well `attribute` and `length_target` reach a length, and what the texts lose.

    python -m studies.length_control --data DATA --items 100 --out length.jsonl

A chat model answers questions of TriviaQA in about a number of tokens. Every method draws with the same noise. The
answers' log-probability a token is that of the model without a chain. Answers in the results file are not drawn again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import LogitsProcessorList

from logitkit import models
from logitkit.bench.execution.sampling import GumbelNoise, pinned_settings, seed_of
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from logitkit.processors.model_facts import end_tokens
from logitkit.registry import Chain
from logitkit.registry.bind import bind
from studies import command
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table
from studies.units import run_units

LOOSE = 2  # tokens by which a length may differ from the one that was asked for
Answers = dict[tuple[str, int], dict[str, Any]]  # (method, number of the question) -> its record


def methods(length: int) -> dict[str, str]:
    """Return the chains that are compared."""
    attribute = f"attribute({{'length': {length}, 'spread': {float(LOOSE)}}}"
    return {
        "plain": "",
        "top_k(20)": "top_k(20)",
        "attribute, strength 1": f"{attribute}, strength=1.0)",
        "attribute, strength 4": f"{attribute}, strength=4.0)",
        "attribute, strength 4, top 2000": f"{attribute}, strength=4.0, top=2000)",
        "length_target, strength 0.5": f"length_target(tokens={length}, strength=0.5)",
    }


def questions(data: Path, count: int) -> list[str]:
    """Return the first questions."""
    rows = read_records(data / "triviaqa_subsample.jsonl")[:count]
    return [str(row["question"]).strip('"').replace('""', '"') for row in rows]


def answers_of(
    loaded: tuple[Any, Any], texts: Sequence[str], chain: str, tokens: int, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the answers to some questions: text, number of tokens, whether it ended, and log-probability a token.

    Args:
        loaded: model and tokenizer.
        texts: the questions, which are decoded together.
        chain: of the method.
        tokens: largest number of tokens of an answer.
        seeds: of the noise, one a question.
    """
    model, tokenizer = loaded
    with pinned_settings(model):
        chats = [[{"role": "user", "content": text}] for text in texts]
        quiet: dict[str, Any] = {"trace": False, "tokenizers": {}, "resources": {}, "warn": False}  # top_k is meant
        call = bind(Chain(chain), model, tokenizer, chats, **quiet)
        output = call.generate(
            max_new_tokens=tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([GumbelNoise(seeds, call.prompts.width)]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        ends, start = end_tokens(model), call.prompts.width
    logp = torch.stack(output.logits, dim=1).float().log_softmax(-1)  # of the model alone, [rows, tokens, vocab]
    new = output.sequences[:, start:]
    logp = logp.gather(-1, new[..., None])[..., 0]
    found = []
    for row, text, own in zip(new.tolist(), call.texts(output), logp.tolist(), strict=True):
        count = next((place for place, token in enumerate(row) if token in ends), len(row))
        read = own[: count + 1]  # the end token too
        found.append({"text": text, "tokens": count, "ended": count < len(row), "logp": sum(read) / len(read)})
    return found


def _answers(
    loaded: PerProcess[tuple[Any, Any]],
    texts: Sequence[str],
    chains: Mapping[str, str],
    tokens: int,
    seed: int,
    unit: tuple[str, Sequence[int]],
) -> list[dict[str, Any]]:
    """Return the answers of a method to the questions of these numbers; see `answers_of`."""
    method, numbers = unit
    seeds = [seed_of(seed, number) for number in numbers]
    return answers_of(loaded.value, [texts[number] for number in numbers], chains[method], tokens, seeds)


def table(answers: Answers, names: Sequence[str], items: int, length: int) -> str:
    """Return errors, shares and log-probabilities with 95 % intervals.

    Args:
        answers: a record of every method and question.
        names: the methods; differences are to the first.
        items: number of questions.
        length: number of tokens that was asked for.
    """

    def values(name: str, of: Callable[[Mapping[str, Any]], float]) -> Any:
        return np.array([float(of(answers[name, number])) for number in range(items)])

    def cell(of_items: Any, form: str) -> str:
        return interval_text(bootstrap_interval(of_items), form)

    rows, plain = [], values(names[0], _logp)
    for name in names:
        error = values(name, lambda one: abs(one["tokens"] - length))
        hits, logp = values(name, lambda one: 100.0 * _hits(one, length)), values(name, _logp)
        cells = [f"{np.median(values(name, lambda one: one['tokens'])):g}", cell(error, ".1f"), cell(hits, ".0f")]
        rows.append([name, *cells, cell(logp, ".2f"), "" if name == names[0] else cell(logp - plain, "+.2f")])
    headings = [f"{items} questions, {length} tokens", "median tokens", "mean error, tokens"]
    return markdown_table(
        [*headings, f"ended within {LOOSE}, %", "log p a token, nats", f"minus {names[0]}"],
        rows,
    )


def _logp(one: Mapping[str, Any]) -> float:
    return float(one["logp"])


def _hits(one: Mapping[str, Any], length: int) -> bool:
    """Return whether an answer ended by itself at about the length."""
    return bool(one["ended"]) and abs(int(one["tokens"]) - length) <= LOOSE


def main(  # Over 40 lines: every option has a line of its own
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=2, max=1000, help="Number of questions, from the first.")] = 100,
    length: Annotated[int, typer.Option(min=1, help="Tokens that an answer should have.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens of an answer.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Questions decoded together.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path("length.jsonl"),
    engine: Engine = "local",
) -> None:
    """Draw the answers that are missing in the results file, and print the table."""
    settings = {"model": model, "length": length, "tokens": tokens, "batch": batch, "seed": seed}
    texts, chains = questions(data, items), methods(length)
    answers: Answers = {
        (record["method"], record["item"]): record for record in resumed_records(out, settings, "length_control")
    }
    parts = [range(start, min(start + batch, items)) for start in range(0, items, batch)]
    todo = [(name, part) for part in parts for name in chains if any((name, n) not in answers for n in part)]

    def keep(unit: tuple[str, Sequence[int]], found: list[dict[str, Any]]) -> None:
        name, part = unit
        for number, record in zip(part, found, strict=True):
            answers[name, number] = record
            append_record(out, {"settings": settings, "method": name, "item": number, **record})

    loaded = PerProcess(functools.partial(models.load, model))
    job = functools.partial(_answers, loaded, texts, chains, tokens, seed)
    run_units(job, todo, keep, engine=engine, title="answers")
    print(table(answers, list(chains), items, length))


if __name__ == "__main__":
    command.run(main)
