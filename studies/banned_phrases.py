"""What `rewind` and `ban_phrases` write in place of a phrase that the model wrote, and what it costs.

Each prompt is the beginning of a paragraph of a book. The phrase is two words that the model itself wrote behind this
prompt, so that every ban acts. Under sampling all methods draw with the same random numbers up to the phrase. Runs in
the results file are not repeated.

    python -m studies.banned_phrases --data DATA --items 30 --out banned.jsonl
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import logitkit
from logitkit import models
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from studies import command
from studies.draft_trees import paragraphs
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table
from studies.units import run_units

BEGINNING = 160  # characters of a paragraph that a prompt has at most
DECODING = {"greedy": "", "temperature 0.8": "temperature(0.8)"}
METHODS = ("plain", "ban_phrases", "rewind")
Run = dict[str, Any]


def prompts(data: Path, count: int) -> list[str]:
    """Return the beginnings of paragraphs, cut behind a word."""
    return [text[:BEGINNING].rpartition(" ")[0] for text in paragraphs(data, count)]


def written_phrase(text: str) -> str | None:
    """Return two words of a text, those behind the first two if there are as many; None: there are none.

    >>> written_phrase("and so he went on his way"), written_phrase("word")
    (' he went', None)
    """
    found = re.findall(r"\s\S+ \S+", text)
    return str(found[min(1, len(found) - 1)]) if found else None


def chain_of(method: str, steps: str, phrase: str | None) -> str:
    """Return the chain of a method; sampled text is drawn by a search, whose random numbers `rewind` shares.

    >>> chain_of("rewind", "temperature(0.8)", " he went")
    "temperature(0.8) | rewind([' he went'])"
    """
    ban = [f"{method}({[phrase]!r})"] if method != "plain" else []
    drawn = ["best_of(n=1)"] if steps and method != "rewind" else []
    return " | ".join([*([steps] if steps else []), *ban, *drawn])


def run_of(loaded: tuple[Any, Any], prompt: str, chain: str, seed: int, tokens: int) -> Run:
    """Return the text of one run, its mean log-probability under the model, its forwards and its number of tokens."""
    model, tokenizer = loaded
    forwards = 0

    def add(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    call = logitkit.chain(chain).bind(model, tokenizer, prompt)
    torch.manual_seed(seed)
    handle = model.register_forward_hook(add)
    ids = call.generate(max_new_tokens=tokens, do_sample="temperature" in chain)
    handle.remove()
    with torch.no_grad():
        start = call.prompts.width
        logp = model(ids).logits[:, start - 1 : -1].log_softmax(-1).gather(-1, ids[:, start:, None])
    new = ids.shape[1] - start
    return {"text": call.texts(ids)[0], "logp": float(logp.mean()), "forwards": forwards, "tokens": new}


def runs_of(loaded: tuple[Any, Any], prompt: str, steps: str, seed: int, tokens: int) -> dict[str, Run] | None:
    """Return the run of every method behind one prompt; None where the model wrote no two words."""
    plain = run_of(loaded, prompt, chain_of("plain", steps, None), seed, tokens)
    phrase = written_phrase(plain["text"])
    if phrase is None:
        return None
    runs = {"plain": plain | {"phrase": phrase}}
    for method in METHODS[1:]:
        runs[method] = run_of(loaded, prompt, chain_of(method, steps, phrase), seed, tokens)
    return runs


def _runs(
    loaded: PerProcess[tuple[Any, Any]], texts: Sequence[str], tokens: int, unit: tuple[str, int]
) -> dict[str, Run] | None:
    """Return the runs of every method behind the prompt of a number; see `runs_of`."""
    decoding, item = unit
    return runs_of(loaded.value, texts[item], DECODING[decoding], item, tokens)


def table(known: Mapping[tuple[str, int], Mapping[str, Run]]) -> str:
    """Return a table of all methods, with intervals over prompts; differences are paired by prompt.

    Args:
        known: the runs of every method, by decoding and number of the prompt.
    """
    rows = []
    for decoding in DECODING:
        own = [runs for (other, _), runs in known.items() if other == decoding]
        masked = np.array([runs["ban_phrases"]["logp"] for runs in own])
        for method in METHODS if own else ():
            logp = np.array([runs[method]["logp"] for runs in own])
            forwards = np.array([runs[method]["forwards"] / runs[method]["tokens"] for runs in own])
            banned = sum(runs["plain"]["phrase"] in runs[method]["text"] for runs in own)
            cells = [(logp, ".2f"), (logp - masked, "+.2f"), (forwards, ".2f")]
            intervals = [interval_text(bootstrap_interval(values), form) for values, form in cells]
            rows.append([decoding, method, *intervals, f"{banned} of {len(own)}"])
    headings = ["decoding", "method", "log p a token", "minus `ban_phrases`", "forwards a token", "with the phrase"]
    return markdown_table(headings, rows)


def main(
    data: Annotated[Path, typer.Option(help="Folder with 1661-0.txt.", envvar="LOGITKIT_DATA")],
    model: Annotated[str, typer.Option(help="Known model, folder or hub id.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=1, max=30, help="Number of prompts.")] = 30,
    tokens: Annotated[int, typer.Option(min=4, help="New tokens of each run.")] = 40,
    out: Annotated[Path, typer.Option(help="File of results; runs in it are not repeated.")] = Path("banned.jsonl"),
    engine: Engine = "local",
) -> None:
    """Print the log-probabilities and the forwards of plain decoding, ban_phrases and rewind."""
    settings = {"model": model, "tokens": tokens}
    known = {(one["decoding"], one["item"]): one["runs"] for one in resumed_records(out, settings, "banned_phrases")}
    texts = prompts(data, items)
    todo = [(name, item) for item in range(len(texts)) for name in DECODING if (name, item) not in known]

    def keep(unit: tuple[str, int], runs: dict[str, Run] | None) -> None:
        known[unit] = runs
        append_record(out, {"settings": settings, "decoding": unit[0], "item": unit[1], "runs": runs})

    job = functools.partial(_runs, PerProcess(functools.partial(models.load, model)), texts, tokens)
    run_units(job, todo, keep, engine=engine, title="runs")
    typer.echo(table({place: runs for place, runs in sorted(known.items()) if runs is not None and place[1] < items}))


if __name__ == "__main__":
    command.run(main)
