"""Samplers compared with equal budgets: tuned on one half of the questions, judged on the other.

    python -m studies.sampler_referee --items 400 --repeats 8 --temperature 1.5 --out referee.jsonl

Every sampler gets the same number of settings. On the development half, the setting with the best exact match is
chosen, among those whose answers are at least as diverse as asked for: without this floor, the setting nearest to
greedy decoding wins for every sampler. The chosen setting alone is judged on the held-out half, by the difference to
top_p of the same question. Answers are sampled with the same seeds for every setting.
Answers in the results file are not generated again.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from logitkit import models
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from logitkit.registry import Chain
from studies.ensemble_generation import matches, prompt_of
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records
from studies.tables import markdown_table
from studies.units import run_units

BASELINE = "top_p"
SETTINGS: dict[str, list[str]] = {  # four each; a smaller budget takes the first ones
    "top_p": ["top_p(0.9)", "top_p(0.7)", "top_p(0.5)", "top_p(0.95)"],
    "top_k": ["top_k(20)", "top_k(5)", "top_k(50)", "top_k(2)"],
    "min_p": ["min_p(0.1)", "min_p(0.3)", "min_p(0.05)", "min_p(0.5)"],
    "top_n_sigma": ["top_n_sigma(1.0)", "top_n_sigma(0.5)", "top_n_sigma(1.5)", "top_n_sigma(2.0)"],
    "p_less": ["p_less()", "p_less(normalized=True)", "p_less(min_keep=2)", "p_less(normalized=True, min_keep=2)"],
    "top_a": ["top_a(0.2)", "top_a(0.5)", "top_a(0.1)", "top_a(1.0)"],
    "tail_free": ["tail_free(0.95)", "tail_free(0.8)", "tail_free(0.9)", "tail_free(0.6)"],
    "xtc": ["min_p(0.1) | xtc(0.1, 0.5)", "min_p(0.3) | xtc(0.2, 0.5)", "min_p(0.1) | xtc(0.2, 0.2)", "xtc(0.1, 0.5)"],
    "dynamic_temperature": [
        "dynamic_temperature(0.2, 1.0)",
        "dynamic_temperature(0.0, 0.7)",
        "dynamic_temperature(0.5, 1.0)",
        "dynamic_temperature(0.2, 1.0, 2.0)",
    ],
    "entropy_temperature": [
        "entropy_temperature(0.7, 0.5)",
        "entropy_temperature(0.5, 1.0)",
        "entropy_temperature(1.0, 1.0)",
        "entropy_temperature(0.7, 2.0)",
    ],
    "quadratic": ["quadratic(0.3)", "quadratic(1.0)", "quadratic(0.3, 2.0)", "quadratic(1.0, 3.0)"],
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The answers of one setting to one question.

    Attributes:
        right: share of the answers that match.
        distinct: number of different answers over the number of answers.
    """

    right: float
    distinct: float


Answers = dict[tuple[str, int], Judged]  # (setting, number of the question)


def judged(texts: Sequence[str], golden: list[str]) -> Judged:
    """Return how many of the answers to a question are right, and how many are different.

    >>> judged([" Paris", " Rome", " Paris."], ["Paris"])
    Judged(right=0.6666666666666666, distinct=0.6666666666666666)
    """
    first = {text.strip().partition("\n")[0].strip(" .") for text in texts}
    return Judged(right=sum(matches(text, golden) for text in texts) / len(texts), distinct=len(first) / len(texts))


def chosen(settings: Sequence[str], numbers: Sequence[int], answers: Answers, floor: float) -> str:
    """Return the setting with the best exact match among those with enough different answers, else the most diverse.

    Args:
        settings: of one sampler.
        numbers: of the questions.
        answers: to these questions.
        floor: least mean of `Judged.distinct`.
    """

    def mean(setting: str, part: str) -> float:
        return float(np.mean([getattr(answers[setting, number], part) for number in numbers]))

    diverse = [setting for setting in settings if mean(setting, "distinct") >= floor]
    return max(diverse, key=lambda s: mean(s, "right")) if diverse else max(settings, key=lambda s: mean(s, "distinct"))


def report(winners: Mapping[str, str], development: Sequence[int], held_out: Sequence[int], answers: Answers) -> str:
    """Return the table of the chosen settings, with 95 % intervals of the held-out half.

    Args:
        winners: the chosen setting of each sampler.
        development, held_out: numbers of the questions.
        answers: of the chosen settings to all questions.
    """
    right = {
        name: np.array([100 * answers[setting, number].right for number in held_out])
        for name, setting in winners.items()
    }
    rows = []
    for name, setting in winners.items():
        tuned = 100 * np.mean([answers[setting, number].right for number in development])
        distinct = np.mean([answers[setting, number].distinct for number in held_out])
        difference = bootstrap_interval(right[name] - right[BASELINE])
        cells = [f"{tuned:.1f}", interval_text(bootstrap_interval(right[name]), ".1f")]
        code = setting.replace("|", "\\|")  # a bar would end the cell
        rows.append([f"`{code}`", *cells, interval_text(difference, "+.1f"), f"{distinct:.2f}"])
    headings = [
        "chosen setting",
        f"exact match, {len(development)} development questions, %",
        f"{len(held_out)} held-out questions, %",
        f"minus {BASELINE}",
        "different answers",
    ]
    return markdown_table(headings, rows)


def sample(
    loaded: tuple[Any, Any], chain: str, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], repeats: int
) -> list[Judged]:
    """Sample answers of a chain to some questions, with seeds that depend on the first question alone."""
    model, tokenizer = loaded
    call = Chain(chain).bind(model, tokenizer, [prompt_of(rows[n]["question"].strip('"')) for n in numbers])
    torch.manual_seed(numbers[0])
    texts = call.texts(call.generate(max_new_tokens=8, do_sample=True, num_return_sequences=repeats))
    parts = [texts[start : start + repeats] for start in range(0, len(texts), repeats)]
    return [judged(part, rows[n]["golden_answers"]) for part, n in zip(parts, numbers, strict=True)]


def _sample(
    loaded: PerProcess[tuple[Any, Any]],
    temperature: float,
    rows: Sequence[Mapping[str, Any]],
    repeats: int,
    unit: tuple[str, Sequence[int]],
) -> list[Judged]:
    """Sample answers of a setting to the questions of these numbers; see `sample`."""
    setting, numbers = unit
    return sample(loaded.value, f"temperature({temperature}) | {setting}", rows, numbers, repeats)


def main(  # Over 40 lines: every option has a line of its own
    data: Annotated[Path, typer.Option(help="Folder of the data files.")] = Path("../shared/data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=4, help="Number of questions; half of them are held out.")] = 30,
    repeats: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 4,
    budget: Annotated[int, typer.Option(min=1, max=4, help="Settings of each sampler.")] = 4,
    temperature: Annotated[float, typer.Option(help="Divides the logits before every sampler.")] = 1.0,
    floor: Annotated[float, typer.Option(help="Different answers that a setting must give, as a share.")] = 0.5,
    only: Annotated[list[str] | None, typer.Option(help=f"A sampler besides {BASELINE}; repeatable.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions decoded together.")] = 8,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path("referee.jsonl"),
    engine: Engine = "local",
) -> None:
    """Tune every sampler on the development half, and print the table of the held-out half."""
    rows = read_records(data / "triviaqa_subsample.jsonl")
    order = np.random.default_rng(0).permutation(len(rows))[:items].tolist()
    development, held_out = order[: items // 2], order[items // 2 :]
    names = [name for name in SETTINGS if not only or name in (BASELINE, *only)]
    answers: Answers = {}
    for record in read_records(out):
        if (record["temperature"], record["repeats"], record["model"]) == (temperature, repeats, model):
            answers[record["setting"], record["item"]] = Judged(right=record["right"], distinct=record["distinct"])
    loaded = PerProcess(functools.partial(models.load, model))

    def keep(unit: tuple[str, Sequence[int]], found: list[Judged]) -> None:
        setting, part = unit
        for number, one in zip(part, found, strict=True):
            answers[setting, number] = one
            record = {"setting": setting, "item": number, "right": one.right, "distinct": one.distinct}
            append_record(out, record | {"temperature": temperature, "repeats": repeats, "model": model})

    def answer(settings: Sequence[str], numbers: Sequence[int], title: str) -> None:
        parts = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
        todo = [(s, part) for s in settings for part in parts if any((s, n) not in answers for n in part)]
        job = functools.partial(_sample, loaded, temperature, rows, repeats)
        run_units(job, todo, keep, engine=engine, title=title)

    answer([setting for name in names for setting in SETTINGS[name][:budget]], development, "development")
    winners = {name: chosen(SETTINGS[name][:budget], development, answers, floor) for name in names}
    answer(list(winners.values()), held_out, "held out")
    print(report(winners, development, held_out, answers))


if __name__ == "__main__":
    typer.run(main)
