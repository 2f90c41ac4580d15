"""Find the passages of a book on which a model was trained, where the truth is known.

The script trains a model on half of some passages of a book, scores all of them as `logitkit membership` does, and
reports how well each score separates the two halves. A score above 0.5 before the training is chance or a difference
between the halves; the gain is due to the training. Passages are drawn at random with a fixed seed, and the rest of
the book is the reference corpus of DC-PDD.

    python examples/membership_of_a_book.py BOOK.txt
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

import torch

from logitkit import models
from logitkit.diagnostics import AreaUnderCurve, area_under_curve, membership_scores, token_counts, token_statistics
from logitkit.progress import progress_bar


def passages_of(text: str, count: int, words: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return passages of so many words in random order, and the rest of the text."""
    all_words = text.split()
    pieces = [" ".join(all_words[start : start + words]) for start in range(0, len(all_words) - words + 1, words)]
    random.Random(seed).shuffle(pieces)
    return pieces[:count], pieces[count:]


def train(model: Any, tokenizer: Any, texts: list[str], *, epochs: int, rate: float) -> None:
    """Train the model on each text by itself, in the given order."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    with progress_bar("training", total=epochs * len(texts)) as bar:
        for _ in range(epochs):
            for text in texts:
                ids = tokenizer(text, return_tensors="pt")["input_ids"]
                model(input_ids=ids, labels=ids).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                bar.advance()
    model.eval()


def areas(model: Any, tokenizer: Any, seen: list[str], unseen: list[str], rest: list[str]) -> dict[str, AreaUnderCurve]:
    """Return how well each score separates the seen passages from the others."""
    counts = token_counts(tokenizer, rest, model.config.vocab_size)
    groups = [
        [membership_scores(token_statistics(model, tokenizer, text), counts=counts) for text in texts]
        for texts in (seen, unseen)
    ]
    return {name: area_under_curve(*([s[name] for s in group] for group in groups)) for name in groups[0][0]}


def main(
    model: Any, tokenizer: Any, text: str, *, count: int = 80, words: int = 60, epochs: int = 2, rate: float = 5e-5
) -> dict[str, tuple[AreaUnderCurve, AreaUnderCurve]]:
    """Return the area under the curve of each score, before and after the training."""
    passages, rest = passages_of(text, count, words)
    seen, unseen = passages[: count // 2], passages[count // 2 :]
    before = areas(model, tokenizer, seen, unseen, rest)
    trained = copy.deepcopy(model)
    train(trained, tokenizer, seen, epochs=epochs, rate=rate)
    after = areas(trained, tokenizer, seen, unseen, rest)
    return {name: (before[name], after[name]) for name in before}


if __name__ == "__main__":
    book = Path(sys.argv[1]).read_text(encoding="utf-8")
    torch.manual_seed(0)
    for name, (before, after) in main(*models.load("smollm2-135m"), book).items():
        numbers = [f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" for area in (before, after)]
        print(f"{name}: before training {numbers[0]}, after {numbers[1]}")
