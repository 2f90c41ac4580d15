"""Time of one step of each sampler, relative to the top-p truncation of transformers.

python -m studies.sampler_speed --rounds 9

The time is that of the processor on one core of the CPU (``time.thread_time``), so that other programs disturb it
little. Every round measures top_p, a copy of the scores and every sampler in turn on the same scores; a table entry is
the median over the rounds of the ratio within a round. No sampler can be faster than the copy, which reads and writes
every score once: its row is the floor. Rows of 1,000 tokens grow by one token a step. ``dry`` is measured with rows of
8,000 tokens too, once in the same way and once in a loop of its own, where the caches of the processor hold its data.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from logitkit.processors.engine import Prompts
from logitkit.processors.samplers import (
    DRY,
    XTC,
    BreakerTable,
    DynamicTemperature,
    EntropyTemperature,
    FrequencyPenalty,
    PLess,
    PresencePenalty,
    Quadratic,
    RowTokens,
    TailFree,
    TopA,
    TopNSigma,
)
from studies import command

VOCABULARIES, BATCHES = (49_152, 151_936), (1, 16)
TOKENS = 1_000  # of a row
LONG = 8_000
FLOOR = "a copy of the scores"
BREAKERS = ["\n", ":", '"', "*"]


def samplers(rows: Tensor, width: int) -> dict[str, LogitsProcessor]:
    """Return every sampler with its default parameters, for rows that begin with the first ten tokens of ``rows``."""
    count = len(rows)
    prompts = Prompts(
        ids=rows[:, :10],
        mask=torch.ones(count, 10, dtype=torch.long),
        texts=("",) * count,
        messages=(None,) * count,
        adds_specials=False,
    )
    table = BreakerTable.of([bytes([token % 256, token // 256 % 256]) for token in range(width)], BREAKERS)
    return {
        "xtc": XTC(),
        "top_n_sigma": TopNSigma(),
        "p_less": PLess(),
        "top_a": TopA(),
        "tail_free": TailFree(),
        "dynamic_temperature": DynamicTemperature(),
        "entropy_temperature": EntropyTemperature(),
        "quadratic": Quadratic(),
        "dry": DRY(table=table, rows=RowTokens(prompts=prompts, prompt=True)),
        "frequency_penalty": FrequencyPenalty(),
        "presence_penalty": PresencePenalty(),
    }


def text_rows(count: int, length: int) -> Tensor:
    """Return rows whose tokens have the frequencies of Zipf's law, ``[count, length]``."""
    draw = random.Random(0)
    weights = [1 / rank for rank in range(1, 2001)]
    return torch.tensor([draw.choices(range(2000), weights, k=length) for _ in range(count)])


def equal_rows() -> Tensor:
    """Return a row of one token, repeated, ``[1, 16000]``."""
    return torch.full((1, 2 * LONG), 7)


def dry_steps(width: int, rows: Tensor, steps: int = 60) -> list[float]:
    """Return the seconds of some steps of ``dry`` behind the first 8,000 tokens of a row."""
    sampler, scores = samplers(rows, width)["dry"], torch.randn(1, width)
    sampler(rows[:, :LONG], scores)
    grown = [rows[:, : LONG + step].clone() for step in range(1, steps + 1)]
    return [seconds(lambda ids=ids: sampler(ids, scores)) for ids in grown]  # type: ignore[misc]


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(width: int, batch: int, rounds: int, tokens: int = TOKENS) -> tuple[float, dict[str, tuple[float, float]]]:
    """Return the median seconds of top_p, and for the copy and each sampler the median ratio and the median seconds.

    Args:
        width: of the scores.
        batch: number of rows.
        rounds: number of measurements.
        tokens: of a row in the first round.
    """
    rows = text_rows(batch, tokens + rounds)
    scores = 3 * torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
    chosen, top_p = samplers(rows, width), TopPLogitsWarper(0.9)
    times: dict[str, list[float]] = {name: [] for name in ("top_p", FLOOR, *chosen)}
    for sampler in chosen.values():
        sampler(rows[:, :tokens], scores)
    for number in range(1, rounds + 1):
        ids = rows[:, : tokens + number].clone()
        times["top_p"].append(seconds(lambda ids=ids: top_p(ids, scores)))  # type: ignore[misc]
        times[FLOOR].append(seconds(scores.clone))
        for name, sampler in chosen.items():
            times[name].append(seconds(lambda ids=ids, sampler=sampler: sampler(ids, scores)))  # type: ignore[misc]
    base = times.pop("top_p")
    ratios = {name: [own / one for own, one in zip(found, base, strict=True)] for name, found in times.items()}
    found = {name: (statistics.median(ratios[name]), statistics.median(times[name])) for name in times}
    return statistics.median(base), found


def table(rounds: int, vocabularies: Sequence[int] = VOCABULARIES, batches: Sequence[int] = BATCHES) -> str:
    """Return the ratios as a Markdown table, and the milliseconds of ``dry`` at 8,000 tokens below it."""
    columns = [(width, batch) for width in vocabularies for batch in batches]
    measured = {column: measure(*column, rounds) for column in columns}
    headings = "".join(f" V = {width:,}, batch {batch} |" for width, batch in columns)
    lines = [f"| |{headings}", "|---" * (len(columns) + 1) + "|"]
    lines.append("| top_p, ms |" + "".join(f" {1e3 * measured[column][0]:.1f} |" for column in columns))
    for name in measured[columns[0]][1]:
        title, digits = (name, 3) if name == FLOOR else (f"`{name}`", 2)
        cells = "".join(f" {measured[column][1][name][0]:.{digits}f} |" for column in columns)
        lines.append(f"| {title} |{cells}")
    for width in vocabularies:
        among = 1e3 * measure(width, 1, rounds, LONG)[1]["dry"][1]
        alone = [1e3 * statistics.median(dry_steps(width, rows)) for rows in (text_rows(1, 2 * LONG), equal_rows())]
        lines.append(
            f"\n`dry` at {LONG:,} tokens, V = {width:,}, batch 1, ms a step: {alone[0]:.2f} in a loop of its own, "
            f"{alone[1]:.2f} where all tokens are equal, {among:.2f} among the other samplers."
        )
    return "\n".join(lines)


def main(rounds: Annotated[int, typer.Option(min=1, help="Number of measurements.")] = 9) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(table(rounds))


if __name__ == "__main__":
    command.run(main)
