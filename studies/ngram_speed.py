"""What a step of style injection costs, beside `nltk.lm` scoring the vocabulary, and how fast counting is.

All rows are measured in one run: every round runs each of them once. Printed are the median and the best of the
wall clock, and the median of the processor time of all threads, which other work on the machine hardly changes.

    python -m studies.ngram_speed don_quixote.txt
"""

from __future__ import annotations

import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from logitkit import models
from logitkit.processors.ngram import NgramStyle, NgramTable, TableVocabulary, TextFiles, counting

WAYS: dict[str, dict[str, Any]] = {
    "lift": {},
    "lift, once, cap_bits=4": {"once": True, "cap_bits": 4.0},
    "lift, plausible=0.01": {"plausible": 0.01},
    "literal, top=512": {"rule": "literal", "top": 512},
    "mixture": {"rule": "mixture"},
    "lift, target_js=0.02": {"weight": 1.0, "target_js": 0.02},
}
LENGTH = 64  # tokens of a row


def milliseconds(run: Callable[[], object]) -> tuple[float, float]:
    """How long one call takes: on the wall clock, and in processor time."""
    begun, used = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - used)


def rows_of(ids: Tensor, batch: int, step: int) -> Tensor:
    """Rows that end in different places of the book, ``[batch, LENGTH]``."""
    starts = (torch.arange(batch) * 7919 + step * 104729) % (len(ids) - LENGTH)
    return torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])


def step_table(table: NgramTable, ids: Tensor, vocab: int, *, batches: list[int], rounds: int, scored: float) -> str:
    """Milliseconds a step, for each way and batch, as Markdown."""
    lines = [
        f"| a step, V = {vocab} | batch | ms | best ms | processor ms | nltk.lm, processor ms | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch in batches:
        processors = {name: NgramStyle(table=table, **settings) for name, settings in WAYS.items()}
        scores = 4 * torch.randn(batch, vocab, generator=torch.Generator().manual_seed(0))  # as spread as logits are
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in processors}
        for step in range(rounds + 3):
            rows = rows_of(ids, batch, step)
            for name, processor in processors.items():
                taken = milliseconds(partial(processor, rows, scores))
                if step >= 3:  # the first ones warm up
                    spent[name].append(taken)
        for name, every in spent.items():
            wall, used = zip(*every, strict=True)
            middle = statistics.median(used)
            cells = (f"{statistics.median(wall):.3f}", f"{min(wall):.3f}", f"{middle:.3f}", f"{scored * batch:.0f}")
            lines.append(f"| {name} | {batch} | {' | '.join(cells)} | {scored * batch / middle:.0f}x |")
    return "\n".join(lines)


def nltk_step(documents: list[list[int]], ids: Tensor, vocab: int, *, rounds: int) -> tuple[float, float]:
    """Seconds that nltk's stupid backoff takes to fit the text, and processor milliseconds to score a vocabulary."""
    from nltk.lm import StupidBackoff
    from nltk.util import everygrams

    begun = time.perf_counter()
    model = StupidBackoff(0.4, order=3)
    model.fit([everygrams(list(map(str, d)), max_len=3) for d in documents], vocabulary_text=map(str, range(vocab)))
    fitting = time.perf_counter() - begun
    words = list(map(str, range(vocab)))
    spent = []
    for step in range(rounds):
        context = [str(token) for token in rows_of(ids, 1, step)[0, -2:].tolist()]
        spent.append(milliseconds(lambda context=context: [model.score(word, context) for word in words])[1])  # type: ignore[misc]
    return fitting, statistics.median(spent)


def training_table(ids: Any, size: int, banned: Any, *, tokens: int, rounds: int) -> str:
    """Tokens counted a second from ids in memory, as Markdown."""
    repeated = np.resize(ids, tokens)
    lines = ["| counting, one thread | tokens | M tokens/s of processor time | peak memory, MB |", "|---|---|---|---|"]
    for orders in (2, 3, 4, 5):

        def run(orders: int = orders) -> None:
            counting.count(counting.join_documents([repeated], base=size, excluded=banned), orders=orders, base=size)

        seconds = statistics.median(milliseconds(run)[1] for _ in range(rounds)) / 1000
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        lines.append(f"| orders 1 to {orders} | {tokens:,} | {tokens / seconds / 1e6:.2f} | {peak:.0f} |")
    return "\n".join(lines)


def main(
    corpus: Annotated[Path, typer.Argument(help="A text file: the whole of it is the table.")],
    model: Annotated[str, typer.Option(help="Whose tokenizer.")] = "smollm2-135m",
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Steps that count.")] = 100,
    tokens: Annotated[int, typer.Option(help="Tokens counted for the speed of training.")] = 4_000_000,
) -> None:
    """Print the tables."""
    tokenizer = models.load_tokenizer(model)
    texts = list(TextFiles([corpus]))
    begun = time.perf_counter()
    table = NgramTable.train(texts, tokenizer)
    trained = time.perf_counter() - begun
    documents = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ids = torch.tensor(documents[0])
    vocabulary = TableVocabulary.of(tokenizer)
    fitting, scored = nltk_step(documents, ids, vocabulary.size, rounds=3)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model}, {rounds} steps; {table!r}")
    print(f"training with tokenizing {trained:.1f} s, nltk fit {fitting:.1f} s\n")
    print(step_table(table, ids, vocabulary.size, batches=batch or [1, 16], rounds=rounds, scored=scored))
    print()
    banned = np.asarray(vocabulary.special)
    print(training_table(np.concatenate(documents), vocabulary.size, banned, tokens=tokens, rounds=3))
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
