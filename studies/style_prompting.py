"""Style of sampled texts under n-gram style injection, beside prompting alone, for two books.

    python -m studies.style_prompting --prompts 60 --out style_prompting.jsonl

The first half of a book steers, or is quoted before the prompt; a table of the second half judges. Every method has
three settings for each book. The one with the lowest style perplexity on the development prompts, among those that
raise the perplexity under the model by at most a quarter, is judged on the held-out prompts. Texts are sampled with
temperature 0.7. Texts in the results file are not sampled again; a run with more prompts or another model adds to it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from logitkit import models
from logitkit.bench.tasks import Continuation, StyleMeter, base_log_perplexity, distinct, halves
from logitkit.bench.tasks.style_prompts import PROMPTS
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.ngram import NgramTable
from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.partial_words import book_texts
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table

BOOKS = {
    "pg996_don_quixote.txt": "Miguel de Cervantes, Don Quixote",
    "1661-0.txt": "Arthur Conan Doyle, Sherlock Holmes",
}
PLAIN = "plain"
METHODS = {
    "ngram_style": {f"weight {w:g}": f"ngram_style('style', {w:g})" for w in (0.05, 0.1, 0.2)},
    "published rule": {
        f"weight {w:g}": f"ngram_style('literal', {w:g}, rule='literal', top=512)" for w in (0.05, 0.2, 0.8)
    },
    "prompting": {"author named": "", "300 characters quoted": "", "900 characters quoted": ""},
}
LOSS = math.log(1.25)  # largest mean rise of the log-perplexity under the model that a chosen setting may have
MEASURES = {
    "style": "log style perplexity",
    "base": "log perplexity under the model",
    "distinct": "distinct trigrams, share",
}
Records = Sequence[dict[str, Any]]


class StyleSampler:
    """Samples and measures texts in the style of one book.

    Args:
        model, tokenizer: the generating model.
        book: file name of the book.
        text: text of the book.
        tokens: largest number of new tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, book: str, text: str, *, tokens: int) -> None:
        self.model, self.tokenizer, self.book, self.tokens = model, tokenizer, book, tokens
        first, second = halves(text)
        table = NgramTable.train([first], tokenizer)
        self.tables = {"style": table, "literal": table.smoothed("add-k", 1e-3)}  # add-k: as published
        self.meter = StyleMeter(NgramTable.train([second], tokenizer))
        self.passage = first[first.find("\n\n", len(first) // 2) :].strip()

    def prefix(self, setting: str) -> str:
        """Return the text that a setting puts before a prompt."""
        if setting == "author named":
            return f"A story in the style of {BOOKS[self.book]}:\n\n"
        length = int(setting.partition(" ")[0]) if setting.endswith("quoted") else 0
        return f"{self.passage[:length].rpartition(' ')[0]}\n\n" if length else ""

    def sample(self, method: str, setting: str, prompts: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield a record for each prompt: the text and its measures."""
        chain = "" if method == PLAIN else METHODS[method][setting]
        resources: dict[str, Any] = {name: table for name, table in self.tables.items() if f"'{name}'" in chain}
        before = self.prefix(setting)
        call = Chain(chain).bind(self.model, self.tokenizer, [before + prompt for prompt in prompts], **resources)
        torch.manual_seed(zlib.crc32(f"{setting}{prompts[0]}".encode()))
        settings: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0}
        output = call.ids(call.generate(max_new_tokens=self.tokens, **settings))
        ends = {*end_tokens(self.model, self.tokenizer), self.tokenizer.pad_token_id}
        for prompt, row in zip(prompts, output[:, call.prompts.width :].tolist(), strict=True):
            tokens = list(itertools.takewhile(lambda token: token not in ends, row))
            tokens = tokens if len(tokens) > 2 else row[:3]
            text = Continuation(prompt=self.tokenizer(prompt)["input_ids"], continuation=tokens, js_bits=[])
            measures = (self.meter.log_perplexity(text), base_log_perplexity(self.model, [text])[0], distinct(text, 3))
            record: dict[str, Any] = dict(zip(MEASURES, (round(value, 6) for value in measures), strict=True))
            record |= {"text": self.tokenizer.decode(tokens)} if prompt in PROMPTS["narrative"] else {}
            yield {"method": method, "setting": setting, "item": item_id(prompt), **record}


def all_prompts(data: Path) -> list[str]:
    """Return the prompts of the task style, then the first twelve words of passages of LAMBADA."""
    ours = [prompt for kind in PROMPTS.values() for prompt in kind]
    passages = [" ".join(row["text"].split()[:12]) for row in read_records(data / "lambada_test.jsonl")]
    return ours + sorted(passages, key=lambda text: hashlib.sha256(text.encode()).digest())


def planned(prompts: Sequence[str], records: Records, book: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the method, setting and prompts that a book still needs.

    On development prompts every setting is sampled; once they are complete, on held-out prompts the chosen ones.
    """
    halved = {
        half: [prompt for prompt in prompts if half_of(item_id(prompt)) == half] for half in ("development", "held-out")
    }
    settings = [(PLAIN, "")] + [(method, setting) for method, group in METHODS.items() for setting in group]
    for half, wanted in halved.items():
        if half == "held-out":
            chosen = chosen_settings(records, book)
            settings = [(PLAIN, ""), *chosen.items()]
        for method, setting in settings:
            have = {r["item"] for r in records if (r["book"], r["method"], r["setting"]) == (book, method, setting)}
            missing = [prompt for prompt in wanted if item_id(prompt) not in have]
            yield from ((method, setting, missing[n : n + 20]) for n in range(0, len(missing), 20))


def chosen_settings(records: Records, book: str) -> dict[str, str]:
    """Return the setting of each method that the development prompts choose; see `LOSS`."""
    chosen = {}
    for method, group in METHODS.items():
        rises = {s: float(_difference(records, book, "development", method, s, "base").mean()) for s in group}
        gains = {s: float(_difference(records, book, "development", method, s, "style").mean()) for s in group}
        allowed = [setting for setting in group if rises[setting] <= LOSS] or [min(group, key=rises.__getitem__)]
        chosen[method] = min(allowed, key=gains.__getitem__)
    return chosen


def _difference(records: Records, book: str, half: str, method: str, setting: str, measure: str) -> Any:
    """Return a measure of a setting minus that of plain sampling, for each prompt of a half, in the order of names."""
    values: dict[str, dict[str, float]] = {PLAIN: {}, method: {}}
    for record in records:
        wanted = (record["method"], record["setting"]) in ((PLAIN, ""), (method, setting))
        if wanted and record["book"] == book and half_of(record["item"]) == half:
            values[record["method"]][record["item"]] = record[measure]
    common = sorted(values[PLAIN].keys() & values[method].keys())
    return np.array([values[method][item] - values[PLAIN][item] for item in common])


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page: those of the first model, and of each further one with its name behind theirs."""
    tables: dict[str, str] = {}
    for number, model in enumerate(dict.fromkeys(record["settings"]["model"] for record in records)):
        own = [record for record in records if record["settings"]["model"] == model]
        behind, before = (f"_{model.replace('-', '_')}", f"{model}, ") if number else ("", "")
        tables |= {f"{name}{behind}": table for name, table in model_results(own, before).items()}
    return tables


def model_results(records: Records, before: str = "") -> dict[str, str]:
    """Return the tables of one model, and samples of the prompts that the study wrote itself.

    Args:
        records: of the model.
        before: text before the names of the comparisons.
    """
    rows, compared, samples = [], [], []
    for book, author_and_title in BOOKS.items():
        title = author_and_title.rpartition(", ")[2]
        if all(record["book"] != book for record in records):
            continue
        chosen = chosen_settings(records, book)
        for method, group in METHODS.items():
            for setting in group:
                cells = [_difference(records, book, "development", method, setting, m) for m in MEASURES]
                mark = "chosen" if chosen[method] == setting else ""
                intervals = [interval_text(bootstrap_interval(cell), "+.3f") for cell in cells]
                rows.append([title, method, setting, str(len(cells[0])), *intervals, mark])
        for method, setting in chosen.items():
            for measure, unit in MEASURES.items():
                difference = _difference(records, book, "held-out", method, setting, measure)
                compared.append(PairedDifferences(f"{before}{title}: {method}, {setting} - plain", unit, difference))
        for method in ("published rule", "prompting"):
            for measure in ("style", "base"):
                first, second = (
                    _difference(records, book, "held-out", name, chosen[name], measure)
                    for name in ("ngram_style", method)
                )
                compared.append(
                    PairedDifferences(f"{before}{title}: ngram_style - {method}", MEASURES[measure], first - second)
                )
        samples += _samples(records, book, {PLAIN: "", **chosen})
    headings = [
        "book",
        "method",
        "setting",
        "development prompts",
        *(f"{unit}, minus plain" for unit in MEASURES.values()),
    ]
    return {
        "comparisons": comparison_table(compared),
        "development": markdown_table([*headings, ""], rows),
        "samples": markdown_table(["book", "method", "prompt", "text"], samples),
    }


def _samples(records: Records, book: str, chosen: dict[str, str]) -> list[list[str]]:
    """Return the texts of the first two held-out narrative prompts."""
    prompts = [prompt for prompt in PROMPTS["narrative"] if half_of(item_id(prompt)) == "held-out"][:2]
    found = {
        (r["item"], r["method"]): r["text"]
        for r in records
        if r["book"] == book and chosen.get(r["method"]) == r["setting"] and "text" in r
    }
    return [
        [
            BOOKS[book].rpartition(", ")[2],
            method,
            prompt,
            " ".join(found[item_id(prompt), method].split()).replace("|", "/"),
        ]
        for prompt in prompts
        for method in chosen
        if (item_id(prompt), method) in found
    ]


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    prompts: Annotated[int, typer.Option(min=30, help="Number of prompts.")] = 60,
    tokens: Annotated[int, typer.Option(min=4, help="Largest number of new tokens.")] = 32,
    out: Annotated[Path, typer.Option(help="File of results; texts in it are not sampled again.")] = Path(
        "style_prompting.jsonl"
    ),
    page: Page = None,
) -> None:
    """Sample the texts that are missing in the results file, and print the tables of all texts in it."""
    settings = {"model": model, "tokens": tokens}
    known = resumed_records(out, None, "style_prompting")
    records = [record for record in known if record["settings"] == settings]
    chosen = all_prompts(data)[:prompts]
    loaded: Any = None
    for book, _, text in book_texts(data):
        if book not in BOOKS or not next(iter(planned(chosen, records, book)), None):
            continue
        loaded = loaded or models.load(model)
        sampler = StyleSampler(loaded[0], loaded[1], book, text, tokens=tokens)
        with progress_bar(book, total=None) as bar:
            while (step := next(planned(chosen, records, book), None)) is not None:
                for record in sampler.sample(*step):
                    records.append({"settings": settings, "book": book, **record})
                    append_record(out, records[-1])
                bar.advance()
    publish(results([record for record in known if record["settings"] != settings] + records), page)


if __name__ == "__main__":
    command.run(main)
