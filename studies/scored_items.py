"""Items of the ensemble study: prompts with options of which one is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from studies.records import read_records


@dataclass(frozen=True, kw_only=True)
class ScoredItem:
    """A prompt and texts that may follow it.

    Attributes:
        prompt: the text before.
        options: the texts.
        right: index of the right option.
    """

    prompt: str
    options: list[str]
    right: int


def lambada(folder: Path) -> Iterator[ScoredItem]:
    """Yield the passages of LAMBADA; the only option is the last word."""
    for row in read_records(folder / "lambada_test.jsonl"):
        prompt, _, word = row["text"].rpartition(" ")
        yield ScoredItem(prompt=prompt, options=[f" {word}"], right=0)


def arc(folder: Path) -> Iterator[ScoredItem]:
    """Yield the questions of ARC-Challenge."""
    for row in read_records(folder / "ARC-Challenge-Dev.jsonl"):
        choices = row["question"]["choices"]
        right = [choice["label"] for choice in choices].index(row["answerKey"])
        options = [f" {choice['text']}" for choice in choices]
        yield ScoredItem(prompt=f"Question: {row['question']['stem']}\nAnswer:", options=options, right=right)


TASKS: dict[str, Callable[[Path], Iterator[ScoredItem]]] = {"lambada": lambada, "arc": arc}
