"""Last words of LAMBADA under contrastive decoding: a small model as the amateur, and the model itself with a window.

    python -m studies.contrastive_amateur --large LARGE --small SMALL --out contrastive_amateur.jsonl

Two pairs of an expert and an amateur: a large model against a small one of the same tokenizer, and a model against
itself, which sees the last tokens of the prompt alone. Each pair has nine settings of window, strength and temperature.
The setting with the most last words right on the development passages is judged on the held-out passages. The expert
reads every passage once for all settings. Passages in the results file are not read again, and a run with more items
adds the missing ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from logitkit import models
from logitkit.processors.contrast import contrastive
from logitkit.progress import progress_bar
from studies import command
from studies.context_answers import judged_answer
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.proxy_tuning import IN_16_BITS
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table

PLAIN = "plain"
PAIRS = {"small amateur": (1, 8, None), "own window": (1, 8, 32)}  # windows; None: the whole prompt
STRENGTHS = ((0.5, 1.0), (1.0, 1.0), (1.0, 0.5))  # beta, and temperature of the amateur
PLAUSIBLE = 0.1  # as published
Records = Sequence[dict[str, Any]]


class Setting(NamedTuple):
    """A setting of `contrastive`: the window of the amateur, its strength and its temperature."""

    window: int | None
    beta: float
    temperature: float

    @property
    def name(self) -> str:
        """The setting as the parameters of `contrastive`."""
        return f"window={self.window}, beta={self.beta:g}, temperature={self.temperature:g}"


def settings_of(pair: str) -> list[Setting]:
    """Return the nine settings of a pair."""
    return [Setting(window, *strength) for window in PAIRS[pair] for strength in STRENGTHS]


PUBLISHED = Setting(1, 1.0, 0.5).name


def last_words(path: Path) -> list[tuple[str, str]]:
    """Return the passages of LAMBADA without their last words, and the words, in the order of a hash of the passage."""
    rows = [row["text"].rpartition(" ") for row in read_records(path)]
    return sorted(
        ((before, f" {word}") for before, _, word in rows), key=lambda item: hashlib.sha256(item[0].encode()).digest()
    )


def ids_of(tokenizer: Any, before: str, word: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a passage and of its last word; the word is read as a part of the text."""
    prompt, whole = tokenizer(before)["input_ids"], tokenizer(before + word)["input_ids"]
    if whole[: len(prompt)] != prompt:
        raise ValueError(f"contrastive_amateur: the word must not change the tokens before it, got {word!r}")
    return prompt, whole[len(prompt) :]


@torch.no_grad()
def logits_before(model: Any, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits before each token of each word after its prompt, ``[tokens, vocab]`` fp32."""
    rows = [[*prompt, *word][:-1] for prompt, word in zip(prompts, words, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])  # what follows a row changes none of it
    states = model.base_model(ids).last_hidden_state
    return [model.lm_head(states[n, len(p) - 1 : len(rows[n])]).float() for n, p in enumerate(prompts)]


def read_batch(
    pair: str, expert: Any, amateur: Any, tokenizer: Any, items: Sequence[tuple[str, str]]
) -> Iterator[dict[str, tuple[float | None, bool]]]:
    """Yield for each item the loss of its word and whether greedy decoding writes it, by setting.

    A word that a setting makes impossible has the loss None.
    """
    read = [ids_of(tokenizer, *item) for item in items]
    prompts, words = [prompt for prompt, _ in read], [word for _, word in read]
    strong = logits_before(expert, prompts, words)
    weak = {
        window: logits_before(amateur, [p if window is None else p[-window:] for p in prompts], words)
        for window in PAIRS[pair]
    }
    for n, word in enumerate(words):
        scores = {PLAIN: strong[n]}
        for setting in settings_of(pair):
            strength = {"beta": setting.beta, "temperature": setting.temperature}
            scores[setting.name] = contrastive(strong[n], weak[setting.window][n], alpha=PLAUSIBLE, **strength)
        judged = {name: judged_answer(score, torch.tensor(word)) for name, score in scores.items()}
        yield {name: (loss if np.isfinite(loss) else None, hit) for name, (loss, hit) in judged.items()}


def points(records: Records, pair: str, half: str, name: str) -> Any:
    """Return 100 for each passage of a half whose last word greedy decoding writes, else 0."""
    return np.array([100.0 * r["results"][name][1] for r in records if r["pair"] == pair and r["half"] == half])


def chosen_setting(records: Records, pair: str) -> str:
    """Return the setting with the most last words right on the development passages; of equal ones the first."""
    return max(
        (s.name for s in settings_of(pair)), key=lambda name: float(points(records, pair, "development", name).mean())
    )


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    rows, compared, tried = [], [], []
    for pair in PAIRS:
        chosen = chosen_setting(records, pair)
        for name in dict.fromkeys((PLAIN, chosen, PUBLISHED)):
            found = points(records, pair, "held-out", name)
            impossible = [
                r["results"][name][0] is None for r in records if (r["pair"], r["half"]) == (pair, "held-out")
            ]
            note = ", ".join(word for word, other in (("chosen", chosen), ("published", PUBLISHED)) if name == other)
            share = f"{sum(impossible)} of {len(impossible)}"
            rows.append([pair, name, note, interval_text(bootstrap_interval(found), ".1f"), share])
        plain = points(records, pair, "held-out", PLAIN)
        for name in dict.fromkeys((chosen, PUBLISHED)):
            difference = points(records, pair, "held-out", name) - plain
            compared.append(PairedDifferences(f"{pair}: {name} - plain", "points right", difference))
        for name in (PLAIN, *(s.name for s in settings_of(pair))):
            found = points(records, pair, "development", name)
            mark = "chosen" if name == chosen else ""
            tried.append([pair, name, str(len(found)), interval_text(bootstrap_interval(found), ".1f"), mark])
    headings = ["pair", "setting", "", "last words right, %", "last words that it makes impossible"]
    return {
        "words": markdown_table(headings, rows),
        "comparisons": comparison_table(compared),
        "development": markdown_table(["pair", "setting", "development passages", "last words right, %", ""], tried),
    }


def main(
    large: Annotated[str, typer.Option(help="The large model: a hub id or a folder.")],
    small: Annotated[str, typer.Option(help="A small model of the same tokenizer.")],
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="The model that is its own amateur.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=20, help="Passages of the large model.")] = 160,
    own_items: Annotated[int, typer.Option(min=20, help="Passages of the model that is its own amateur.")] = 400,
    rows: Annotated[int, typer.Option(min=1, help="Passages that are read together.")] = 8,
    out: Annotated[Path, typer.Option(help="File of results; passages in it are not read again.")] = Path(
        "contrastive_amateur.jsonl"
    ),
    page: Page = None,
) -> None:
    """Read the passages that are missing in the results file, and print the tables of all passages in it."""
    settings = {"large": Path(large).name, "small": Path(small).name, "model": Path(model).name}
    records = resumed_records(out, settings, "contrastive_amateur")
    listed = last_words(data / "lambada_test.jsonl")
    for pair, count in zip(PAIRS, (items, own_items), strict=True):
        done = {record["item"] for record in records if record["pair"] == pair}
        todo = [item for item in listed[:count] if item_id(item[0]) not in done]
        if not todo:
            continue
        if pair == "small amateur":
            (expert, tokenizer), (amateur, _) = models.load(large, like=IN_16_BITS), models.load(small)
        else:
            expert, tokenizer = models.load(model)
            amateur = expert
        with progress_bar(pair, total=len(todo), piped=True) as bar:
            for start in range(0, len(todo), rows):
                batch = todo[start : start + rows]
                for (before, _), found in zip(batch, read_batch(pair, expert, amateur, tokenizer, batch), strict=True):
                    half = half_of(f"half of {item_id(before)}")
                    record = {"settings": settings, "pair": pair, "item": item_id(before), "half": half}
                    records.append({**record, "results": found})
                    append_record(out, records[-1])
                    bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
