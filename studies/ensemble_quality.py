"""What an ensemble is worth: accuracy and log-loss of single models, plain means and CoRE on the same items.

Every model reads every item once; all ways of combining them answer from the same logits. Items already in the results
file are not read again, so a run can be interrupted and resumed.

- ``lambada``: the last word of a passage. Correct: every token of it is the likeliest one.
- ``arc``: multiple choice; the option with the highest log-probability a byte.

Log-loss is in nats a word (lambada) or nats a byte of the right option (arc). A method that cuts distributions to
their likeliest tokens may call the answer impossible; its log-loss is then reported as inf, beside the same
method with ``topk=0``.

    python -m studies.ensemble_quality lambada --helper gemma-3-270m --items 300 --out results.jsonl
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from logitkit import models
from logitkit.processors.alignment import Alignment, AlignmentVocabulary, align
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.prompts import read_prompts
from logitkit.processors.ensemble.deepen import Deepen
from logitkit.processors.ensemble.helper_models import find_helper_models
from logitkit.processors.ensemble.member_probabilities import Member
from logitkit.processors.ensemble.processors import Core, Ensemble
from logitkit.processors.ensemble.representation import Representation, shared_tokens
from logitkit.processors.tokens import Retokenizer

ALIGNS = ("exact", "mined", "gac", "unite", "embedding")
KERNELS = ("linear", "power", "reciprocal", "sigmoid")
NOISE = (5, 10, 20)  # per cent of an alignment's rows sent to a random main token

Read = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A prompt, and texts that may follow it, of which one is right."""

    prompt: str
    options: list[str]
    right: int


def lambada(folder: Path) -> Iterator[Item]:
    for row in _lines(folder / "lambada_test.jsonl"):
        prompt, _, word = row["text"].rpartition(" ")
        yield Item(prompt=prompt, options=[f" {word}"], right=0)


def arc(folder: Path) -> Iterator[Item]:
    for row in _lines(folder / "ARC-Challenge-Dev.jsonl"):
        choices = row["question"]["choices"]
        right = [choice["label"] for choice in choices].index(row["answerKey"])
        options = [f" {choice['text']}" for choice in choices]
        yield Item(prompt=f"Question: {row['question']['stem']}\nAnswer:", options=options, right=right)


TASKS: dict[str, Callable[[Path], Iterator[Item]]] = {"lambada": lambada, "arc": arc}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Bench:
    """The models of one comparison and every way to combine them."""

    def __init__(self, main: str, helpers: list[str], task: str) -> None:
        self.names = helpers
        self.loaded = {name: models.load(name) for name in [main, *helpers]}
        self.main, self.tokenizer = self.loaded[main]
        self.side = AlignmentVocabulary.of(self.main, self.tokenizer)
        self.sides = {name: AlignmentVocabulary.of(*self.loaded[name]) for name in helpers}
        self.logits: dict[str, Tensor] = {}  # of the item at hand, by model
        self.begun: dict[str, Tensor] = {}  # after the prompt alone
        self.processors = dict(self._all() if task == "lambada" else self._few())

    def _members(self, how: str, noise: int = 0) -> list[Member]:
        found = []
        for seed, (name, side) in enumerate(self.sides.items()):
            made = align(how, side, self.side, cache=models.cache_folder() / "alignments")
            found.append(Member(name=name, read=self._reads(name), alignment=corrupted(made, noise, seed)))
        return found

    def _reads(self, name: str) -> Read:
        return lambda ids: self.logits[name]

    def _half(self) -> list[float]:
        return [1.0, *[1 / len(self.names)] * len(self.names)]

    def _few(self) -> Iterator[tuple[str, Any]]:
        for how in ("gac", "unite"):
            helpers = self._members(how)
            yield f"vanilla {how}", Ensemble(helpers=helpers)
            yield f"vanilla {how}, main 1/2", Ensemble(helpers=helpers, weights=self._half())
        yield "core gac, topk 0", self._core(self._members("gac"), topk=0)
        yield "core gac choice, topk 0", self._core(self._members("gac"), preset="choice", topk=0)

    def _all(self) -> Iterator[tuple[str, Any]]:
        for how in ALIGNS:
            helpers = self._members(how)
            yield f"vanilla {how}", Ensemble(helpers=helpers, topk=10)
            yield f"vanilla {how}, main 1/2", Ensemble(helpers=helpers, weights=self._half(), topk=10)
            yield f"core {how}", self._core(helpers)
        helpers = self._members("gac")
        yield "vanilla gac, topk 0", Ensemble(helpers=helpers)
        yield "vanilla gac, main 1/2, topk 0", Ensemble(helpers=helpers, weights=self._half())
        yield "geometric gac, topk 0", Ensemble(helpers=helpers, fuse="geometric")
        yield "core gac, topk 0", self._core(helpers, topk=0)
        for kernel in KERNELS:
            yield f"core gac, {kernel}", self._core(helpers, kernel=kernel)
        yield "core gac, published", self._core(helpers, preset="published")
        yield "core gac, choice", self._core(helpers, preset="choice")
        yield "deepen", self._deepen()
        for how in ("mined", "gac"):
            for noise in NOISE:
                helpers = self._members(how, noise)
                yield f"vanilla {how}, {noise} % noise", Ensemble(helpers=helpers, topk=10)
                yield (
                    f"vanilla {how}, main 1/2, {noise} % noise",
                    Ensemble(helpers=helpers, weights=self._half(), topk=10),
                )
                yield f"core {how}, {noise} % noise", self._core(helpers)

    def _core(self, helpers: list[Member], **given: Any) -> Core:
        return Core(
            helpers=helpers, token_bytes=self.side.vocabulary.token_bytes, end_tokens=self.side.end_tokens, **given
        )

    def _deepen(self) -> Deepen:
        ours, theirs = shared_tokens(self.side, list(self.sides.values()), 4096)
        tables = {name: pair[0].get_input_embeddings().weight.detach() for name, pair in self.loaded.items()}
        spaces = [Representation(tables[name], ids) for name, ids in zip(self.names, theirs, strict=True)]
        helpers = [(self._reads(name), space) for name, space in zip(self.names, spaces, strict=True)]
        return Deepen(main=Representation(self.main.get_input_embeddings().weight.detach(), ours), helpers=helpers)

    @torch.no_grad()
    def answer(self, item: Item) -> dict[str, Any]:
        """For each way: log-probability of every option, and whether greedy decoding would write the right one."""
        prompts = read_prompts(self.tokenizer, self.main, item.prompt)
        binding = Binding(
            self.main,
            self.tokenizer,
            prompts,
            resources={name: pair[0] for name, pair in self.loaded.items()},
            tokenizers={name: pair[1] for name, pair in self.loaded.items()},
        )
        texts = [option.encode() for option in item.options]
        rows = Retokenizer(self.side.vocabulary, self.tokenizer, self.side.vocabulary).of_bytes(texts)
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *row[-1:] * (width - len(row))] for row in rows])
        ids = torch.cat([prompts.ids.expand(len(rows), -1), padded], dim=1)
        counted = torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]
        scores = self.main(ids, logits_to_keep=width + 1).logits[:, :-1].float()[counted]  # [tokens, vocab]
        for helper in find_helper_models(binding, "bench", self.names):
            steps = [helper.read(ids[:, : prompts.width + place]) for place in range(width)]
            self.logits[helper.name], self.begun[helper.name] = torch.stack(steps, dim=1)[counted], steps[0]
        wanted, place = padded[counted], counted.nonzero()[:, 0]
        found = {"main alone": _judged(scores.log_softmax(-1), wanted, place, len(rows))}
        for name in self.names:
            found[f"{name} alone"] = self._alone(name, item)
        for label, processor in self.processors.items():
            logp = processor(torch.zeros(len(scores), 1, dtype=torch.long), scores).log_softmax(-1)
            found[label] = _judged(logp, wanted, place, len(rows))
        return {"right": item.right, "bytes": [len(text) for text in texts], "answers": found}

    def _alone(self, name: str, item: Item) -> dict[str, Any]:
        """A helper's own answer, in its own tokens."""
        model, tokenizer = self.loaded[name]
        side = self.sides[name]
        own = tokenizer(item.prompt)["input_ids"]
        judged: dict[str, list[Any]] = {"logp": [], "greedy": []}
        texts = [option.encode() for option in item.options]
        rows = Retokenizer(side.vocabulary, tokenizer, side.vocabulary).of_bytes(texts)
        for row, begun in zip(rows, self.begun[name], strict=True):
            logits = begun[None]
            if len(row) > 1:
                logits = model(torch.tensor([[*own, *row]]), logits_to_keep=len(row) + 1).logits[0, :-1]
            logp = logits.float().log_softmax(-1)
            one = _judged(logp, torch.tensor(row), torch.zeros(len(row), dtype=torch.long), 1)
            judged["logp"] += one["logp"]
            judged["greedy"] += one["greedy"]
        return judged


def _judged(logp: Tensor, wanted: Tensor, place: Tensor, count: int) -> dict[str, Any]:
    """Log-probability of each option and whether each of its tokens is the likeliest."""
    own = logp.gather(-1, wanted[:, None])[:, 0].double()
    best = logp.argmax(-1) == wanted
    total = [float(own[place == number].sum()) for number in range(count)]
    return {"logp": total, "greedy": [bool(best[place == number].all()) for number in range(count)]}


def corrupted(made: Alignment, noise: int, seed: int) -> Alignment:
    """Send ``noise`` per cent of the aligned helper tokens to a random main token instead."""
    generator = torch.Generator().manual_seed(seed)
    aligned = (made.weights.sum(-1) > 0).nonzero()[:, 0]
    hit = aligned[torch.randperm(len(aligned), generator=generator)[: len(aligned) * noise // 100]]
    targets = made.targets.clone()
    targets[hit] = torch.randint(0, made.main_size, (len(hit), targets.shape[1]), generator=generator)
    return dataclasses.replace(made, targets=targets)


def table(records: list[dict[str, Any]], task: str) -> str:
    """Accuracy and log-loss with 95 % intervals, and the difference to the main model, by a paired bootstrap."""
    labels = list(records[0]["answers"])
    right, loss = (np.array([[_measured(r, label, task)[k] for label in labels] for r in records]) for k in (0, 1))
    draw = np.random.default_rng(0).integers(0, len(records), (4000, len(records)))
    unit = "nats a word" if task == "lambada" else "nats a byte"
    lines = [f"| {task}, {len(records)} items | accuracy, % | over the main model | log-loss, {unit} | over the main |"]
    lines.append("|---|---|---|---|---|")
    for place, label in enumerate(labels):
        cells = [_interval(100 * right[:, place], draw), _interval(100 * (right[:, place] - right[:, 0]), draw, "+.1f")]
        if np.isfinite(loss[:, place]).all():
            cells += [
                _interval(loss[:, place], draw, ".3f"),
                _interval(loss[:, place] - loss[:, 0], draw, "+.3f"),
            ]
        else:
            cells += [f"inf on {np.isinf(loss[:, place]).sum()} items", ""]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def falls(records: list[dict[str, Any]]) -> str:
    """What noise in the alignment costs each way of averaging: points of accuracy, paired, with 95 % intervals."""
    noisy = [label for label in records[0]["answers"] if label.endswith(" % noise")]
    draw = np.random.default_rng(0).integers(0, len(records), (4000, len(records)))

    def right(label: str) -> np.ndarray[Any, Any]:
        return np.array([100 * _measured(record, label, "lambada")[0] for record in records])

    clean = dict.fromkeys(label.rpartition(", ")[0] for label in noisy)
    cells = [[_interval(right(f"{c}, {n} % noise") - right(c), draw, "+.1f") for n in NOISE] for c in clean]
    head = f"| accuracy lost to noise, points | {' | '.join(f'{n} %' for n in NOISE)} |\n|---|---|---|---|"
    return "\n".join([head, *(f"| {name} | {' | '.join(row)} |" for name, row in zip(clean, cells, strict=True))])


def _measured(record: dict[str, Any], label: str, task: str) -> tuple[float, float]:
    """Whether the answer is right, and its log-loss."""
    answer, sizes, right = record["answers"][label], record["bytes"], record["right"]
    logp = [value if value is not None else -math.inf for value in answer["logp"]]
    if task == "lambada":
        return float(answer["greedy"][0]), -logp[0]
    each = [value / size for value, size in zip(logp, sizes, strict=True)]
    return float(int(np.argmax(each)) == right), -each[right]


def _interval(values: np.ndarray[Any, Any], draw: np.ndarray[Any, Any], form: str = ".1f") -> str:
    low, high = np.percentile(values[draw].mean(-1), [2.5, 97.5])
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


def main(
    task: Annotated[str, typer.Argument(help="lambada or arc")],
    data: Annotated[Path, typer.Option(help="The folder of the data files.")] = Path("../shared/data"),
    main: Annotated[str, typer.Option(help="The main model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="Helpers: known models or folders.")] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 300,
    out: Annotated[Path, typer.Option(help="Results, one line an item; what is there is kept.")] = Path(
        "quality.jsonl"
    ),
    minutes: Annotated[float, typer.Option(help="Stop after so many; run again to go on.")] = math.inf,
) -> None:
    """Read items that are not in the results file yet, and print the table of all that are."""
    import time

    chosen = list(TASKS[task](data))
    order = np.random.default_rng(0).permutation(len(chosen))[:items].tolist()
    done = {record["item"]: record for record in _lines(out)} if out.is_file() else {}
    todo = [number for number in order if number not in done]
    end = time.monotonic() + 60 * minutes
    if todo:
        bench = Bench(main, helper or ["gemma-3-270m"], task)
        with out.open("a", encoding="utf-8") as file:
            for number in track(todo, description=task, console=Console(stderr=True), transient=True):
                if time.monotonic() > end:
                    break
                done[number] = {"item": number, **bench.answer(chosen[number])}
                file.write(json.dumps(done[number]).replace("-Infinity", "null") + "\n")
                file.flush()
    records = [json.loads(json.dumps(done[number]).replace("-Infinity", "null")) for number in order if number in done]
    print(table(records, task))
    if task == "lambada":
        print(f"\n{falls(records)}")


if __name__ == "__main__":
    typer.run(main)
