"""Bits per byte of held-out passages of a book under proxy tuning, an ensemble, and prompts that quote the book.

    python examples/tune_a_small_pair.py SMALL DATA/1661-0.txt tuned --encoding cp1252
    python -m studies.proxy_tuning --large LARGE --small SMALL --tuned tuned --out proxy_tuning.jsonl

The small model is tuned on the first 80 % of a book, and passages are those of the rest. A large model that was not
tuned reads each passage; `dexperts` adds the difference of the tuned and the untuned small model, `ensemble` mixes the
large and the tuned small model, and prompting quotes the part that the small model was tuned on. Every method has three
settings, of which the development passages choose one. Passages in the results file are not read again, and a run with
more items adds the missing ones.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from transformers import DynamicCache

from logitkit import models
from logitkit.processors.contrast import dexperts
from logitkit.processors.transformers_api import with_cache
from logitkit.progress import progress_bar
from studies import command
from studies.books import book_text
from studies.evidence import Half, Page, PairedDifferences, comparison_table, half_of, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

BOOK, TITLE = "1661-0.txt", "From The Adventures of Sherlock Holmes by Arthur Conan Doyle:\n\n"
READ = 0.8  # share of the book that the small model is tuned on
PASSAGE, QUOTED = 600, (400, 1200)  # characters
LARGE, TUNED, UNTUNED = "large model", "tuned small model", "small model"
PROXY = {alpha: f"dexperts, alpha {alpha:g}" for alpha in (0.1, 0.25, 1.0)}
MIXED = {weight: f"ensemble, large model {weight:g}" for weight in (0.5, 0.7, 0.9)}
PROMPTS = ("title and author", *(f"{length} characters quoted" for length in QUOTED))
ARMS = {"dexperts": tuple(PROXY.values()), "ensemble": tuple(MIXED.values()), "prompting": PROMPTS}
PUBLISHED = PROXY[1.0]
IN_16_BITS = SimpleNamespace(dtype=torch.bfloat16, device="cpu")  # how the large model is loaded
Records = Sequence[dict[str, Any]]


def joined_lines(text: str) -> str:
    """Return a text with a space for each line break inside a paragraph, as the example that tunes reads it."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def parts(path: Path) -> tuple[str, str]:
    """Return the part of a book that the small model is tuned on, and the rest, without the notes at the end."""
    text = book_text(path)
    read, rest = (joined_lines(part) for part in (text[: int(READ * len(text))], text[int(READ * len(text)) :]))
    return read, rest.partition("*** END OF")[0]


def passages(rest: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts of passages that begin with a word, in the order of a hash of their names."""
    starts = [match.start() for match in re.finditer(r"(?<=\s)\w", rest)]
    chosen, end = [], 0
    for start in starts:
        if start >= end and start + PASSAGE <= len(rest):
            chosen.append((f"passage {start}", rest[start : start + PASSAGE]))
            end = start + PASSAGE
    yield from sorted(chosen, key=lambda named: hashlib.sha256(named[0].encode()).digest())


def split(item: str) -> Half:
    """Return the half of a passage; passages come in the order of a hash of their names, so this is another hash."""
    return half_of(f"half of {item}")


def prompt_of(setting: str, read: str) -> str:
    """Return the text that a setting of prompting puts before a passage: the title, or the end of what was read."""
    if setting == PROMPTS[0]:
        return TITLE
    quoted = read[-int(setting.partition(" ")[0]) :]
    return quoted[quoted.find(" ") + 1 :] + "\n\n"


class PassageReader:
    """Reads passages with one model, after a prompt that is read once.

    Args:
        model, tokenizer: the model.
        prompt: text before every passage; empty: the passages alone.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: str = "") -> None:
        self.model, self.cache = model, DynamicCache()
        self.beginning = tokenizer(prompt)["input_ids"] or [tokenizer.bos_token_id]
        with torch.no_grad():
            self.first = model(torch.tensor([self.beginning]), **with_cache(self.cache)).logits[:, -1:]

    @torch.no_grad()
    def logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the logits before each token of each row, ``[tokens, vocab]`` fp32."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])  # what follows a row changes none of it
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(rows))
        read = self.model(ids[:, :-1], **with_cache(cache)).logits
        return [torch.cat([self.first[0], read[n, : len(row) - 1]]).float() for n, row in enumerate(rows)]


def mixed_scores(large: Tensor, tuned: Tensor, untuned: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the scores of each method that needs no prompt, from the logits of three models, ``[tokens, vocab]``."""
    yield from ((LARGE, large), (TUNED, tuned), (UNTUNED, untuned))
    for alpha, name in PROXY.items():
        yield name, dexperts(large, tuned, untuned, alpha=alpha)
    logp, logq = large.log_softmax(-1), tuned.log_softmax(-1)
    for weight, name in MIXED.items():
        yield name, torch.logaddexp(logp + math.log(weight), logq + math.log(1 - weight))


def bits(scores: Tensor, ids: Sequence[int]) -> float:
    """Return the bits of a row of tokens under the scores before each of them.

    Examples:
        >>> bits(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), [0, 0])
        3.0
    """
    found = scores.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])
    return round(-float(found.sum()) / math.log(2), 6)


def read_passages(
    readers: Sequence[PassageReader], tokenizer: Any, texts: Sequence[str], setting: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield for each passage its size in bytes and tokens, and its bits under each method.

    Args:
        readers: the large, the tuned and the untuned model; with a setting of prompting the large model alone.
        tokenizer: the tokenizer of all.
        texts: the passages.
        setting: the setting of prompting under which the large model reads; empty: none.
    """
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    read = [reader.logits(rows) for reader in readers]
    for text, row, *logits in zip(texts, rows, *read, strict=True):
        scores = [(setting, logits[0])] if setting else mixed_scores(*logits)
        found = {name: bits(score, row) for name, score in scores}
        yield {"bytes": len(text.encode()), "tokens": len(row), "bits": found}


def rates(records: Records, half: str, label: str) -> dict[str, float]:
    """Return the bits per byte of a method, by passage of a half."""
    return {
        r["item"]: r["bits"][label] / r["bytes"] for r in records if label in r["bits"] and split(r["item"]) == half
    }


def chosen_setting(records: Records, arm: str) -> str:
    """Return the setting of a method with the fewest bits per byte on the development passages that all have."""
    found = {setting: rates(records, "development", setting) for setting in ARMS[arm]}
    common = set.intersection(*map(set, found.values()))
    return min(found, key=lambda setting: sum(found[setting][item] for item in sorted(common)))


def planned(names: Sequence[str], records: Records, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Yield a setting of prompting, or nothing for all other methods, and the passages that it still needs.

    Held-out passages are read with a prompt once the development passages have chosen it.
    """

    def missing(setting: str, wanted: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        have = {r["item"] for r in records if (setting or LARGE) in r["bits"]}
        todo = [name for name in wanted if name not in have]
        yield from ((setting, todo[n : n + rows]) for n in range(0, len(todo), rows))

    yield from missing("", names)
    development = [name for name in names if split(name) == "development"]
    for setting in PROMPTS:
        yield from missing(setting, development)
    yield from missing(chosen_setting(records, "prompting"), [name for name in names if name not in development])


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    chosen = {arm: chosen_setting(records, arm) for arm in ARMS}
    held_out = {
        label: rates(records, "held-out", label) for label in (LARGE, TUNED, UNTUNED, *chosen.values(), PUBLISHED)
    }
    rows = []
    for label, found in held_out.items():
        note = [word for word, names in (("chosen", chosen.values()), ("published", [PUBLISHED])) if label in names]
        rows.append([label, ", ".join(note), str(len(found)), interval_text(bootstrap_interval(list(found.values())))])
    proxy, mixed, prompt = chosen.values()
    pairs = [(label, LARGE) for label in dict.fromkeys((proxy, PUBLISHED, mixed, prompt))]
    pairs += [(proxy, mixed), (proxy, prompt), (proxy, TUNED), (TUNED, UNTUNED), (TUNED, LARGE)]
    compared = [PairedDifferences(f"{a} - {b}", "bits a byte", _difference(held_out, a, b)) for a, b in pairs]
    tried = []
    for arm, settings in ARMS.items():
        for setting in settings:
            found = rates(records, "development", setting)
            mark = "chosen" if chosen[arm] == setting else ""
            tried.append([arm, setting, str(len(found)), interval_text(bootstrap_interval(list(found.values()))), mark])
    return {
        "passages": markdown_table(["method", "setting", "held-out passages", "bits a byte"], rows),
        "comparisons": comparison_table(compared),
        "development": markdown_table(["method", "setting", "development passages", "bits a byte", ""], tried),
    }


def _difference(values: dict[str, dict[str, float]], first: str, second: str) -> list[float]:
    """Return the differences of two methods on the passages that both have, in the order of names."""
    common = sorted(values[first].keys() & values[second].keys())
    return [values[first][item] - values[second][item] for item in common]


def main(
    tuned: Annotated[str, typer.Option(help="Folder of the tuned small model.")],
    large: Annotated[str, typer.Option(help="The large model: a hub id or a folder.")],
    small: Annotated[str, typer.Option(help="The small model, untuned, with the same tokenizer.")],
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    items: Annotated[int, typer.Option(min=12, help="Number of passages.")] = 72,
    rows: Annotated[int, typer.Option(min=1, help="Passages that are read together.")] = 8,
    out: Annotated[Path, typer.Option(help="File of results; passages in it are not read again.")] = Path(
        "proxy_tuning.jsonl"
    ),
    page: Page = None,
) -> None:
    """Read the passages that are missing in the results file, and print the tables of all passages in it."""
    settings = {"large": Path(large).name, "small": Path(small).name, "characters": PASSAGE}
    records = resumed_records(out, settings, "proxy_tuning")
    read, rest = parts(data / BOOK)
    texts = dict(list(passages(rest))[:items])
    load = functools.cache(lambda name: models.load(name, like=IN_16_BITS if name == large else None))
    readers: dict[str, list[PassageReader]] = {}
    with progress_bar("batches of passages", total=None, piped=True) as bar:
        while (step := next(planned(list(texts), records, rows), None)) is not None:
            setting, names = step
            tokenizer = load(large)[1]
            if setting not in readers:
                prompt = prompt_of(setting, read) if setting else ""
                wanted = [large] if setting else [large, tuned, small]
                readers[setting] = [PassageReader(load(name)[0], tokenizer, prompt) for name in wanted]
            found = read_passages(readers[setting], tokenizer, [texts[name] for name in names], setting)
            for name, record in zip(names, found, strict=True):
                records.append({"settings": settings, "item": name, **record})
                append_record(out, records[-1])
            bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
