"""Sparse but critical: the tokens of largest divergence between a model and itself after tuning, exchanged.

    python -m studies.critical_tokens --examples answers.jsonl
    python examples/tune_a_small_pair.py smollm2-135m answers.jsonl tuned --rate 1e-4 --epochs 1
    python -m studies.critical_tokens --tuned tuned --out critical_tokens.jsonl

The task is to write the last sentence of a passage of LAMBADA again with its missing last word, which the model is
tuned on with other passages. `crossover` takes the tokens of the tuned model where the divergence is above a threshold;
in the reverse direction the tuned model takes tokens of the untuned one. Controls exchange as large a share of tokens
at random. Development passages choose one of three thresholds. Two passages of our own are answered too, to be read;
no other answer is kept as text. Answers in the results file are not written again, and a run with more items adds the
missing ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from logitkit import models
from logitkit.processors.model_facts import end_tokens
from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.tables import markdown_table

TASK = "{passage} ____\n\nWrite the last sentence again, with its missing word."
LONGEST, WORDS = 330, range(5, 15)  # characters of a passage, and words of its last sentence without the last one
NEW_TOKENS = 28
THRESHOLDS = (0.1, 0.3, 0.6)  # of the divergence, in bits
ENOUGH = 0.8  # share of the gain that the chosen threshold recovers on the development passages
BASE, TUNED = "untuned", "tuned"
FORWARD = {cut: f"untuned, tuned above {cut:g} bits" for cut in THRESHOLDS}
REVERSE = {cut: f"tuned, untuned above {cut:g} bits" for cut in THRESHOLDS}
RANDOM = {cut: f"untuned, tuned at random, share of {cut:g} bits" for cut in THRESHOLDS}
REVERSE_RANDOM = {cut: f"tuned, untuned at random, share of {cut:g} bits" for cut in THRESHOLDS}
Records = Sequence[dict[str, Any]]


class Passage(NamedTuple):
    """A passage without its last word, the last sentence without it, and the word."""

    before: str
    sentence: str
    word: str

    @property
    def item(self) -> str:
        """Name of the passage in the results."""
        return item_id(self.before)

    @property
    def half(self) -> str:
        """Half of the passage; passages come in the order of a hash of their texts, so this is another hash."""
        return half_of(f"half of {self.item}")


OWN = tuple(
    Passage(f"{first} {last}", last, word)
    for first, last, word in (
        ("Mia baked a cake.", "Her brother came home late, and found nothing but crumbs on his", "plate"),
        ("The captain had lost his map.", "Ben saw it on the deck, picked it up and gave it to the", "captain"),
    )
)
Step = tuple[str, float, str, Sequence[Passage]]  # arm, share of its tokens at random, half, passages


def passages(path: Path) -> list[Passage]:
    """Return the short passages of LAMBADA in the order of a hash of their texts."""
    found = []
    for row in read_records(path):
        before, _, word = row["text"].rpartition(" ")
        sentence = re.split(r"(?<=[.!?])[\"”'’]*\s+|\n+", before)[-1]
        if len(row["text"]) <= LONGEST and len(sentence.split()) in WORDS and word.isalpha():
            found.append(Passage(before, sentence, word))
    return sorted(found, key=lambda passage: hashlib.sha256(passage.before.encode()).digest())


def prompt_of(tokenizer: Any, passage: Passage) -> str:
    """Return the chat that asks for the last sentence, up to the answer."""
    chat = [{"role": "user", "content": TASK.format(passage=passage.before)}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def arms_of(cut: float) -> tuple[str, ...]:
    """Return the arms that are compared: all thresholds forward, one in reverse, and a control of each."""
    return BASE, TUNED, *FORWARD.values(), *RANDOM.values(), REVERSE[cut], REVERSE_RANDOM[cut]


def is_right(text: str, word: str) -> bool:
    r"""Return whether a text is one line that ends with a word; signs behind the word do not count.

    Examples:
        >>> is_right("It made up for the lack of coffee.", "coffee"), is_right("Coffee.\nIt made up.", "coffee")
        (True, False)
    """
    words = re.findall(r"[\w'’-]+", text.strip())
    return "\n" not in text.strip() and bool(words) and words[-1].casefold() == word.casefold()


class Writer:
    """Writes answers with a pair of models.

    Args:
        base, tuned: the model before and after tuning.
        tokenizer: of both.
    """

    def __init__(self, base: Any, tuned: Any, tokenizer: Any) -> None:
        self.models, self.tokenizer = {BASE: base, TUNED: tuned}, tokenizer

    def answers(self, arm: str, chosen: Sequence[Passage], share: float = 0.0) -> Iterator[dict[str, Any]]:
        """Yield for each passage whether the answer is right, and its numbers of tokens and of exchanged tokens.

        Args:
            arm: name of the arm.
            chosen: the passages.
            share: share of the tokens that an arm at random exchanges.
        """
        own, _, exchange = arm.partition(", ")
        other = TUNED if own == BASE else BASE
        chain = ""
        if "at random" in exchange:
            chain = f"crossover(other='other', measure='random', threshold={1 - share:.4f})"
        elif exchange:
            chain = f"crossover(other='other', threshold={exchange.split()[-2]})"
        texts = [prompt_of(self.tokenizer, passage) for passage in chosen]
        resources = {"other": self.models[other]} if chain else {}
        call = Chain(chain).bind(self.models[own], self.tokenizer, texts, trace=True, **resources)
        output = call.generate(max_new_tokens=NEW_TOKENS, do_sample=False)
        ends = {*end_tokens(self.models[own], self.tokenizer)}
        written = call.ids(output)[:, call.prompts.width :].tolist()
        for number, (passage, text, row) in enumerate(zip(chosen, call.texts(output), written, strict=True)):
            tokens = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
            steps = [s for s in call.trace.steps if s.row == number and s.position < tokens and "switched" in s.notes]
            switched = [step.notes for step in steps if step.notes["switched"]]
            changed = sum(notes["own_token"] != notes["other_token"] for notes in switched)
            counts = {"tokens": tokens, "switched": len(switched), "changed": changed}
            yield {"right": is_right(text, passage.word), **counts, "text": text}

    def records(self, arm: str, share: float, half: str, chosen: Sequence[Passage]) -> Iterator[dict[str, Any]]:
        """Yield the record of each passage; the texts of samples alone are kept, as others repeat a data set."""
        for passage, answer in zip(chosen, self.answers(arm, chosen, share), strict=True):
            if half != "samples":
                answer.pop("text")
            yield {"item": passage.item, "half": half, "arm": arm, **answer}


def values(records: Records, half: str, arm: str, field: str) -> dict[str, float]:
    """Return a field of an arm by passage of a half: ``right`` in points, counts as shares of the tokens."""
    found = {r["item"]: r for r in records if r["half"] == half and r["arm"] == arm}
    if field == "right":
        return {item: 100.0 * r["right"] for item, r in found.items()}
    return {item: r[field] / r["tokens"] for item, r in found.items()}


def mean(records: Records, half: str, arm: str, field: str) -> float:
    """Return the mean of a field of an arm."""
    return float(np.mean(list(values(records, half, arm, field).values())))


def chosen_threshold(records: Records) -> float:
    """Return the highest threshold that recovers enough of the gain on the development passages, else the lowest.

    It is the threshold of the reverse direction, too.
    """
    base, tuned = (mean(records, "development", arm, "right") for arm in (BASE, TUNED))
    enough = base + ENOUGH * (tuned - base)
    return max(
        [cut for cut, arm in FORWARD.items() if mean(records, "development", arm, "right") >= enough],
        default=min(THRESHOLDS),
    )


def planned(listed: Mapping[str, Sequence[Passage]], records: Records, rows: int) -> Iterator[Step]:
    """Yield an arm, the share of tokens that a random arm exchanges, the half, and the passages that the arm lacks.

    Development passages first: they choose the threshold, and state the shares of the controls. Then each batch of
    the others is written by all arms, so that a run that is stopped has complete batches.
    """
    done = {(record["item"], record["arm"]) for record in records}

    def batches(half: str, *arms: tuple[str, float]) -> Iterator[Step]:
        for start in range(0, len(listed[half]), rows):
            batch = listed[half][start : start + rows]
            for arm, share in arms:
                if todo := [passage for passage in batch if (passage.item, arm) not in done]:
                    yield arm, share, half, todo

    yield from batches("development", *((arm, 0.0) for arm in (BASE, TUNED, *FORWARD.values())))
    cut = chosen_threshold(records)
    yield from batches("development", (REVERSE[cut], 0.0))
    like = {RANDOM[c]: FORWARD[c] for c in THRESHOLDS} | {REVERSE_RANDOM[cut]: REVERSE[cut]}
    shares = {arm: mean(records, "development", like[arm], "switched") for arm in like}
    for half in ("held-out", "samples"):
        yield from batches(half, *((arm, shares.get(arm, 0.0)) for arm in arms_of(cut)))


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page, of the held-out passages that all arms have answered."""
    cut = chosen_threshold(records)
    arms = arms_of(cut)
    right = {arm: values(records, "held-out", arm, "right") for arm in arms}
    common = sorted(set.intersection(*map(set, right.values())))
    pairs = [(TUNED, BASE), *((FORWARD[one], RANDOM[one]) for one in THRESHOLDS), (FORWARD[cut], BASE)]
    pairs += [(TUNED, FORWARD[cut]), (TUNED, REVERSE[cut]), (REVERSE_RANDOM[cut], REVERSE[cut])]
    differences = {(a, b): [right[a][item] - right[b][item] for item in common] for a, b in pairs}
    compared = [PairedDifferences(f"({a}) - ({b})", "points right", found) for (a, b), found in differences.items()]
    headings = ["answers", "passages", "right, %", "share of the gain", "tokens exchanged", "tokens changed by it"]
    tried, chosen = (BASE, TUNED, *FORWARD.values(), REVERSE[cut]), (FORWARD[cut], REVERSE[cut])
    development = sorted(values(records, "development", REVERSE[cut], "right"))
    shown: dict[str, list[str]] = {arm: [arm] for arm in arms}
    for record in sorted((r for r in records if r["half"] == "samples"), key=lambda r: str(r["item"])):
        shown[record["arm"]].append(" ".join(record["text"].split()).replace("|", "/"))
    before = [own.before for own in sorted(OWN, key=lambda own: own.item)]
    return {
        "answers": markdown_table(headings, [_row(records, "held-out", arm, common) for arm in arms]),
        "comparisons": comparison_table(compared),
        "development": markdown_table(
            [*headings, ""],
            [[*_row(records, "development", arm, development), "chosen" * (arm in chosen)] for arm in tried],
        ),
        "samples": markdown_table(["answers", *before], list(shown.values())),
    }


def _row(records: Records, half: str, arm: str, items: Sequence[str]) -> list[str]:
    """Return the row of an arm: passages, share right, part of the gain of tuning, tokens exchanged and changed."""
    right = {name: values(records, half, name, "right") for name in (BASE, TUNED, arm)}
    gain = [right[TUNED][item] - right[BASE][item] for item in items]
    part = [right[arm][item] - right[BASE][item] for item in items]
    cells = [arm, str(len(items)), interval_text(bootstrap_interval([right[arm][item] for item in items]), ".1f")]
    if arm in (BASE, TUNED):
        return [*cells, "", "", ""]
    cells.append(interval_text(bootstrap_interval(part, gain), ".2f") if sum(gain) > 0 else "no gain")
    for field in ("switched", "changed"):
        found = values(records, half, arm, field)
        cells.append(interval_text(bootstrap_interval([found[item] for item in items])))
    return cells


def write_examples(path: Path, tokenizer: Any, listed: Sequence[Passage], items: int) -> None:
    """Write the examples that the model is tuned on: passages from the end of the list, which no run reaches."""
    with path.open("w", encoding="utf-8") as file:
        for passage in listed[-items:]:
            answer = f"{passage.sentence} {passage.word}."
            file.write(json.dumps({"prompt": prompt_of(tokenizer, passage), "completion": answer}) + "\n")


def main(
    tuned: Annotated[str, typer.Option(help="Folder of the tuned model.")] = "tuned",
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="The model before tuning.")] = "smollm2-135m",
    items: Annotated[int, typer.Option(min=2, max=700, help="Number of held-out passages.")] = 48,
    development: Annotated[int, typer.Option(min=2, max=300, help="Number of development passages.")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="Answers that are written together.")] = 16,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not written again.")] = Path(
        "critical_tokens.jsonl"
    ),
    page: Page = None,
    examples: Annotated[Path | None, typer.Option(help="Write the examples for tuning here, and end.")] = None,
    tuned_on: Annotated[int, typer.Option(min=1, max=1500, help="Number of those examples.")] = 400,
) -> None:
    """Write the answers that are missing in the results file, and print the tables of all answers in it."""
    listed = passages(data / "lambada_test.jsonl")
    if examples is not None:
        write_examples(examples, models.load_tokenizer(model), listed, tuned_on)
        return
    settings = {"model": Path(model).name, "tokens": NEW_TOKENS}
    records = resumed_records(out, settings, "critical_tokens")
    halves = {"development": development, "held-out": items}
    chosen = {half: [p for p in listed if p.half == half][:count] for half, count in halves.items()}
    chosen["samples"] = list(OWN)
    writer: Writer | None = None
    with progress_bar("batches of answers", total=None, piped=True) as bar:
        while (step := next(planned(chosen, records, rows), None)) is not None:
            writer = writer or Writer(models.load(model)[0], *models.load(tuned))
            for record in writer.records(*step):
                records.append({"settings": settings, **record})
                append_record(out, records[-1])
            bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
