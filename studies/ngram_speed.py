"""Cost of a step of style injection relative to `nltk.lm` scoring the vocabulary, and speed of counting n-grams.

All rows are measured in one run, whose rounds run each of them once. Reported are the median and the minimum of the
wall-clock time, and the median of the CPU time of all threads, which other processes hardly disturb. The floor is a
copy of the scores, which every rule makes, since a processor never writes to its arguments.

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
from studies import command
from studies.tables import markdown_table

SETTINGS: dict[str, dict[str, Any]] = {
    "lift": {},
    "lift, once, cap_bits=4": {"once": True, "cap_bits": 4.0},
    "lift, plausible=0.01": {"plausible": 0.01},
    "literal, top=512": {"rule": "literal", "top": 512},
    "mixture": {"rule": "mixture"},
    "lift, target_js=0.02": {"weight": 1.0, "target_js": 0.02},
}
LENGTH = 64  # tokens of a row
FLOOR = "a copy of the scores"


def milliseconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the wall-clock time and the CPU time of one call, in milliseconds."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - cpu_begun)


def rows_of(ids: Tensor, batch: int, step: int) -> Tensor:
    """Return rows that end at different places of the book, ``[batch, LENGTH]``."""
    starts = (torch.arange(batch) * 7919 + step * 104729) % (len(ids) - LENGTH)
    return torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])


def step_table(table: NgramTable, ids: Tensor, vocab: int, *, batches: list[int], rounds: int, scored: float) -> str:
    """Return milliseconds per step of each setting and batch size, as Markdown.

    Args:
        table: the table of the style.
        ids: token ids of the book.
        vocab: number of columns of the scores.
        batches: batch sizes.
        rounds: number of timed steps.
        scored: CPU milliseconds that nltk takes to score the vocabulary for one row.
    """
    lines = []
    for batch in batches:
        processors: dict[str, Callable[[Tensor, Tensor], Tensor]] = {FLOOR: lambda rows, scores: scores.clone()}
        processors |= {name: NgramStyle(table=table, **settings) for name, settings in SETTINGS.items()}
        scores = 4 * torch.randn(batch, vocab, generator=torch.Generator().manual_seed(0))  # about the spread of logits
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in processors}
        for step in range(rounds + 3):
            rows = rows_of(ids, batch, step)
            for name, processor in processors.items():
                duration = milliseconds(partial(processor, rows, scores))
                if step >= 3:  # the first three steps warm up
                    spent[name].append(duration)
        floor = statistics.median(cpu for _, cpu in spent[FLOOR])
        for name, durations in spent.items():
            wall, cpu = zip(*durations, strict=True)
            median = statistics.median(cpu)
            cells = (f"{statistics.median(wall):.3f}", f"{min(wall):.3f}", f"{median:.3f}", f"{median / floor:.1f}")
            nltk = ("", "") if name == FLOOR else (f"{scored * batch:.0f}", f"{scored * batch / median:.0f}")
            lines.append([name, str(batch), *cells, *nltk])
    headings = [f"one step, V = {vocab}", "batch", "ms", "minimum ms", "CPU ms", "CPU / floor"]
    return markdown_table([*headings, "nltk.lm, CPU ms", "nltk.lm / CPU"], lines)


def nltk_step(documents: list[list[int]], ids: Tensor, vocab: int, *, rounds: int) -> tuple[float, float]:
    """Measure nltk's stupid backoff.

    Args:
        documents: token ids of the documents.
        ids: token ids of the book.
        vocab: size of the vocabulary.
        rounds: number of contexts whose vocabulary is scored.

    Returns:
        Seconds to fit the documents, and CPU milliseconds to score the vocabulary after one context.
    """
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


def training_table(ids: Any, size: int, excluded: Any, *, tokens: int, rounds: int) -> str:
    """Return the speed of counting n-grams of ids in memory, as Markdown.

    Args:
        ids: token ids, repeated up to ``tokens``.
        size: size of the vocabulary.
        excluded: ids of special tokens, which n-grams do not contain.
        tokens: number of counted tokens.
        rounds: number of timed runs.
    """
    repeated = np.resize(ids, tokens)
    lines = []
    for orders in (2, 3, 4, 5):

        def run(orders: int = orders) -> None:
            counting.count(counting.join_documents([repeated], base=size, excluded=excluded), orders=orders, base=size)

        seconds = statistics.median(milliseconds(run)[1] for _ in range(rounds)) / 1000
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        lines.append([f"orders 1 to {orders}", f"{tokens:,}", f"{tokens / seconds / 1e6:.2f}", f"{peak:.0f}"])
    headings = ["counting, one thread", "tokens", "M tokens per CPU second", "peak memory, MB"]
    return markdown_table(headings, lines)


def main(
    corpus: Annotated[Path, typer.Argument(help="A text file, counted as a whole.")],
    model: Annotated[str, typer.Option(help="The model whose tokenizer is used.")] = "smollm2-135m",
    batch: Annotated[list[int] | None, typer.Option(help="A batch size; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Number of timed steps.")] = 100,
    tokens: Annotated[int, typer.Option(help="Number of tokens counted to measure the speed of counting.")] = 4_000_000,
) -> None:
    """Print the cost of a step and the speed of counting."""
    tokenizer = models.load_tokenizer(model)
    texts = list(TextFiles([corpus]))
    begun = time.perf_counter()
    table = NgramTable.train(texts, tokenizer)
    trained = time.perf_counter() - begun
    documents = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ids = torch.tensor(documents[0])
    vocabulary = TableVocabulary.of(tokenizer)
    fitting, scored = nltk_step(documents, ids, vocabulary.size, rounds=3)
    typer.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model}, {rounds} steps; {table!r}")
    typer.echo(f"counting with tokenization {trained:.1f} s, nltk fit {fitting:.1f} s\n")
    typer.echo(step_table(table, ids, vocabulary.size, batches=batch or [1, 16], rounds=rounds, scored=scored))
    typer.echo()
    excluded = np.asarray(vocabulary.special)
    typer.echo(training_table(np.concatenate(documents), vocabulary.size, excluded, tokens=tokens, rounds=3))
    typer.echo(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    command.run(main)
