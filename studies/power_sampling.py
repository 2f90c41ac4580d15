"""Power sampling by SMC beside low temperatures and best-of, at equal forwards, on the last words of LAMBADA.

    python -m studies.power_sampling --data DATA --items 30 --out power.jsonl

Each method has the same rows and the same number of new tokens, so it runs the same forwards: independent samples at
temperature 1 and 1/alpha, the likeliest of the samples of temperature 1, and the particles of ``smc``. A method is
right on a passage with the probability that its text begins with the last word of the passage. Runs in the results
file are not repeated.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import DynamicCache

import logitkit
from logitkit import models
from logitkit.bench.execution.sampling import pinned_settings
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from logitkit.processors.transformers_api import with_cache
from studies import command
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.scored_items import ScoredItem, lambada
from studies.tables import markdown_table
from studies.units import run_units

ALPHAS = (2.0, 4.0)
MOST_ROWS = 16
Record = dict[str, Any]  # method -> [share of right texts, mean log-probability of a text under the model]


def chains(rows: int) -> dict[str, str]:
    """Return the chains of a run, each with this number of rows."""
    found = {"temperature 1": f"best_of(n={rows}, by='likelihood')"}
    for alpha in ALPHAS:
        found[f"temperature {1 / alpha:g}"] = f"temperature({1 / alpha:g}) | best_of(n={rows}, by='likelihood')"
        found[f"smc, alpha {alpha:g}"] = f"smc(particles={rows}, alpha={alpha:g})"
    return found


def is_right(item: ScoredItem, text: str) -> bool:
    """Return whether a text begins with the right word, in any case."""
    word = re.match(r"\W*([\w'-]+)", text)
    return word is not None and word[1].lower() == item.options[item.right].strip().lower()


@torch.no_grad()
def log_likelihoods(model: Any, ids: torch.Tensor, width: int) -> torch.Tensor:
    """Return the log-probability of the new tokens of each row, up to the end token, in nats, ``[rows]``.

    Args:
        model: the model.
        ids: rows of one prompt, ``[rows, length]``, without padding before it.
        width: number of tokens of the prompt.
    """
    new, cache = ids[:, width:], DynamicCache(config=model.config)
    first = model(ids[:1, :width], **with_cache(cache)).logits[:, -1:]  # the rows share the prompt
    cache.batch_repeat_interleave(len(ids))
    later = model(new[:, :-1], **with_cache(cache)).logits if new.shape[1] > 1 else first[:, :0]
    logits = torch.cat([first.expand(len(ids), -1, -1), later], dim=1).float()
    logp = logits.log_softmax(-1).gather(-1, new[..., None])[..., 0]
    ends = torch.isin(new, torch.tensor(model.generation_config.eos_token_id))
    written = ends.long().cumsum(-1) - ends.long() == 0  # padding follows the first end token
    return torch.where(written, logp, 0.0).sum(-1)


def measured(loaded: tuple[Any, Any], item: ScoredItem, rows: int, tokens: int, seed: int) -> Record:
    """Return what every method does with one passage.

    Args:
        loaded: model and tokenizer.
        item: the passage.
        rows: samples or particles of each method.
        tokens: new tokens of each row.
        seed: of the passage.
    """
    model, tokenizer = loaded
    record: Record = {}
    for name, chain in chains(rows).items():
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"max_new_tokens": tokens, "num_return_sequences": rows}
        with pinned_settings(model):
            run = logitkit.generate(model, tokenizer, item.prompt, chain, **settings)
            likelihood = log_likelihoods(model, run.ids, len(tokenizer(item.prompt)["input_ids"])).double()
        right = torch.tensor([is_right(item, text) for text in run.texts]).double()
        weights = torch.ones(rows).double() / rows if run.weights is None else run.weights[0].exp().cpu()
        record[name] = [float((weights * right).sum()), float((weights * likelihood).sum())]
        if name == "temperature 1":  # the rows are ranked by their likelihood
            record[f"best of {rows}"] = [float(right[0]), float(likelihood[0])]
        if run.trace.search is not None and "ess" in run.trace.search.notes:
            record[name].append(float(np.mean(run.trace.search.notes["ess"])))
    return record


def _measured(
    loaded: PerProcess[tuple[Any, Any]],
    passages: Sequence[ScoredItem],
    rows: int,
    tokens: int,
    seed: int,
    number: int,
) -> Record:
    """Return what every method does with the passage of a number."""
    own = zlib.crc32(f"{seed} {number}".encode())
    return measured(loaded.value, passages[number], rows, tokens, own)


def table(records: Mapping[int, Record]) -> str:
    """Return accuracies and likelihoods with 95 % intervals, and their paired differences to the low temperature.

    Args:
        records: what every method did with each passage.
    """
    items = sorted(records)
    rows = []
    for method in records[items[0]]:
        right = np.array([100.0 * records[n][method][0] for n in items])
        likelihood = np.array([records[n][method][1] for n in items])
        alpha = method.removeprefix("smc, alpha ")
        other = "temperature 1" if alpha == method else f"temperature {1 / float(alpha):g}"
        base = np.array([100.0 * records[n][other][0] for n in items])
        gain = "" if method == other else f"{interval_text(bootstrap_interval(right - base), '+.1f')} ({other})"
        sizes = [records[n][method][2] for n in items if len(records[n][method]) > 2]
        size = f"{np.mean(sizes):.1f}" if sizes else ""
        cells = [interval_text(bootstrap_interval(right), ".1f"), gain]
        rows.append([method, *cells, interval_text(bootstrap_interval(likelihood), ".2f"), size])
    headings = [f"LAMBADA, {len(items)} passages", "right last words, %", "minus another method", "log p(x), nats"]
    return markdown_table([*headings, "mean ESS"], rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=2, max=30, help="Number of passages, from the first.")] = 30,
    rows: Annotated[int, typer.Option(min=2, max=MOST_ROWS, help="Samples or particles of each method.")] = MOST_ROWS,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each row.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    out: Annotated[Path, typer.Option(help="File of results; runs in it are not repeated.")] = Path("power.jsonl"),
    engine: Engine = "local",
) -> None:
    """Run the passages that are missing in the results file, and print the table."""
    settings = {"model": model, "rows": rows, "tokens": tokens, "seed": seed}
    records = {one["item"]: one["methods"] for one in resumed_records(out, settings, "power_sampling")}
    passages = [item for item, _ in zip(lambada(data), range(items), strict=False)]
    todo = [number for number in range(len(passages)) if number not in records]

    def keep(number: int, record: Record) -> None:
        records[number] = record
        append_record(out, {"settings": settings, "item": number, "methods": record})

    loaded = PerProcess(functools.partial(models.load, model))
    job = functools.partial(_measured, loaded, passages, rows, tokens, seed)
    run_units(job, todo, keep, engine=engine, title="passages")
    print(table({number: records[number] for number in range(len(passages))}))


if __name__ == "__main__":
    command.run(main)
