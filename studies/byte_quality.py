"""What a cut inside a token costs: the next character after a random cut, by four ways of prompting.

Texts are cut at a random byte. Each way gives a law of the next byte; reported are how often its likeliest byte is
the true one and the mean log-loss in bits, with 95 % bootstrap intervals, and by how much byte_boundary's log-loss
differs from the others', cut by cut. Healing by transformers is greedy and writes one text, so it has an accuracy
only; a tokenizer without a begin token, with which it fails, is given its end token for one. The same texts cut at
the token boundary before the cut show what is lost to the cut alone: there, plain prompting is right.

    python -m studies.byte_quality ../shared/data --count 100
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from logitkit import models
from logitkit.errors import FileFormatError
from logitkit.processors.byte_level.covers import Covers, Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.successor_rule import EveryToken
from logitkit.processors.byte_level.tree import ByteTree
from logitkit.processors.engine.kv_tree import KVTree

WAYS = ("plain prompt", "transformers token_healing", "hard mask", "byte_boundary", "cut at a token boundary, plain")
Law = NDArray[np.float64]


def texts(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(kind, text before a random cut, character after it): HumanEval solutions behind their prompts, and prose."""
    generator = random.Random(seed)
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    for task in generator.sample(tasks, min(count, len(tasks))):
        solution = task["canonical_solution"]
        place = generator.randrange(1, len(solution))
        yield "code", (task["prompt"] + solution[:place])[-600:], solution[place]
    prose = (folder / "pg996_don_quixote.txt").read_text(encoding="utf-8")
    for _ in range(count):
        place = generator.randrange(1000, len(prose) - 1)
        yield "prose", prose[place - 400 : place], prose[place]


class Ways:
    """The ways of prompting one model."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tree = ByteTree(model, tokenizer)
        self.healer = copy.deepcopy(tokenizer)
        self.healer.bos_token = tokenizer.bos_token or tokenizer.eos_token
        self.every = Covers(EveryToken(self.tree.vocabulary), self.tree.covers.trie)

    @torch.no_grad()
    def plain(self, ids: list[int]) -> Law:
        """The first byte of the next token."""
        return self._first_bytes(self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy())

    def _first_bytes(self, logp: Any) -> Law:
        ids = self.every.trie.ids
        letters = self.every.trie.next_byte(0, len(ids), 0)
        law = np.bincount(letters, weights=np.exp(logp[ids], dtype=np.float64), minlength=257)
        law[256] = np.exp(logsumexp(logp[self.tree.end_tokens]))
        return law / float(law.sum())

    def exact(self, text: bytes) -> Law:
        """byte_boundary: the conditional law given all bytes."""
        law: Law = self.tree.distribution(text, prefix=()).logp.exp().numpy()
        return law / float(law.sum())

    def masked(self, text: bytes) -> Law:
        """The hard mask behind the same trimmed prompt: at each step, whatever agrees with the removed bytes."""
        trunk, _ = self.tree.covers.of_text(text)
        trunk = trunk or self.tokenizer(text.decode())["input_ids"][:1]
        removed = text[len(self.tree.vocabulary.join(trunk)) :]
        tree, law = KVTree(self.model), np.zeros(257)
        start = tree.read(tree.root, trunk, conditioning=True)
        todo: list[tuple[Hypothesis, Any, float]] = [(Hypothesis(context=(), start=0), start, 1.0)]
        while todo:
            heads, todo = todo, []
            for head, place, mass in heads:
                logp = place.logp
                if head.start == len(removed):
                    law += mass * self._first_bytes(logp)
                    continue
                beyond = self.every.tokens_beyond(head, removed)
                within = self.every.extensions_within(head, removed)
                ids = np.concatenate([beyond, [other.tokens[-1] for other in within]]).astype(np.int64)
                chosen = np.exp(logp[ids] - logsumexp(logp[ids])) * mass
                pending = removed[head.start :]
                low, _ = self.every.trie.range(pending)
                low += len(self.every.trie.exact(pending))
                letters = self.every.trie.next_byte(low, low + len(beyond), len(pending))
                law += np.bincount(letters, weights=chosen[: len(beyond)], minlength=257)
                worth = [(o, m) for o, m in zip(within, chosen[len(beyond) :], strict=True) if m > 1e-4]
                nodes = tree.grow((place, other.tokens[-1:]) for other, _ in worth)
                todo += [
                    (Hypothesis(context=(), start=other.start), node, m)
                    for (other, m), node in zip(worth, nodes, strict=True)
                ]
        return law / float(law.sum())

    def judged(self, text: str, truth: str) -> dict[str, Any]:
        """Whether each way has the next byte right, and its log-loss in bits."""
        byte = truth.encode()[0]
        self.tree.release()  # the last cut was in another text
        laws = {
            "plain prompt": (self.plain(self.tokenizer(text)["input_ids"]), byte),
            "hard mask": (self.masked(text.encode()), byte),
            "byte_boundary": (self.exact(text.encode()), byte),
            "cut at a token boundary, plain": self.at_boundary(text, truth),
        }
        hits: dict[str, bool | None] = {way: int(law.argmax()) == wanted for way, (law, wanted) in laws.items()}
        losses = {way: float(-np.log2(max(law[wanted], 1e-12))) for way, (law, wanted) in laws.items()}
        return {"hits": hits | {"transformers token_healing": self.healed(text, truth)}, "losses": losses}

    def healed(self, text: str, truth: str) -> bool | None:
        """Whether transformers' token healing, which strips the prompt, writes the true character; None: it failed."""
        inputs = self.tokenizer(text, return_tensors="pt")
        settings = {"token_healing": True, "tokenizer": self.healer, "do_sample": False, "max_new_tokens": 8}
        try:
            written = self.tokenizer.decode(self.model.generate(**inputs, **settings)[0], skip_special_tokens=True)
        except (KeyError, RuntimeError):  # transformers 5.23: a last token without extensions; a text it made shorter
            return None
        stripped = text.strip()
        behind = text[text.rindex(stripped) + len(stripped) :] + truth if stripped else text + truth
        return bool(written.lstrip()[len(stripped) :].startswith(behind))

    def at_boundary(self, text: str, truth: str) -> tuple[Law, int]:
        """Plain prompting with the true tokens before the cut, and the byte that follows them."""
        ids = self.tokenizer(text + truth)["input_ids"]
        while len(self.tree.vocabulary.join(ids)) > len(text.encode()):
            ids = ids[:-1]
        done = len(self.tree.vocabulary.join(ids))
        return self.plain(ids), (text + truth).encode()[done]


def interval(values: list[float] | list[bool], digits: int) -> str:
    """A mean with its bootstrap interval."""
    generator = np.random.default_rng(0)
    means = [np.mean(generator.choice(values, len(values))) for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def row(way: str, hits: list[bool], losses: list[float]) -> str:
    """One row: accuracy and log-loss."""
    return f"| {way} | {interval(hits, 3)} | {interval(losses, 2) if losses else '-'} |"


def main(
    folder: Annotated[Path, typer.Argument(help="Where HumanEval.jsonl.gz and pg996_don_quixote.txt are.")],
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    count: Annotated[int, typer.Option(min=1, help="Texts of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Which texts, and where they are cut.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A line a cut; what is there is not measured again.")] = None,
) -> None:
    """Print the tables as Markdown."""
    asked = {"model": model, "count": count, "seed": seed}
    done = [json.loads(line) for line in out.read_text().splitlines()] if out and out.is_file() else []
    if done and done[0]["asked"] != asked:
        raise FileFormatError(
            f"byte_quality: --out must be a file of {asked}, got one of {done[0]['asked']}; name another"
        )
    todo = list(texts(folder, count, seed))[len(done) :]
    if todo:
        ways = Ways(*models.load(model))
        for kind, text, truth in track(todo, console=Console(stderr=True)):
            done.append({"asked": asked, "kind": kind, **ways.judged(text, truth)})
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    for kind in ("code", "prose"):
        cuts = [cut for cut in done if cut["kind"] == kind]
        losses = {way: [cut["losses"][way] for cut in cuts] for way in cuts[0]["losses"]}
        print(f"{model}, {kind}, {len(cuts)} random cuts\n")
        print("| way | next byte right | log-loss, bits |\n|---|---|---|")
        print("\n".join(row(way, [bool(cut["hits"][way]) for cut in cuts], losses.get(way, [])) for way in WAYS) + "\n")
        for way in ("plain prompt", "hard mask"):
            pairs = zip(losses["byte_boundary"], losses[way], strict=True)
            print(f"byte_boundary - {way}: {interval([ours - theirs for ours, theirs in pairs], 3)} bits a cut\n")
    failed = sum(cut["hits"]["transformers token_healing"] is None for cut in done)
    print(f"transformers' token_healing raised an error on {failed} prompts, counted as misses.")


if __name__ == "__main__":
    typer.run(main)
