"""Tasks whose answers are given: their log-likelihood under the chain is what counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from logitkit.bench.tasks.passages import passages
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task, finite
from logitkit.errors import FileFormatError
from logitkit.params import option, whole
from logitkit.registry.scored_text import Scored

Rows = list[dict[str, Any]]


class Choice(Task):
    """Multiple choice: the option with the largest log-likelihood a byte is chosen.

    Rows are those of ARC in either of its forms: ``question.stem`` and ``question.choices`` with text and label, or
    ``question`` and ``choices`` with lists of them; ``answerKey`` is a label. A tie goes to the first option.
    """

    metrics = (
        Metric(name="accuracy", better="higher", binary=True, what="largest log-likelihood a byte is the right one"),
        Metric(name="accuracy_sum", better="higher", binary=True, what="by the log-likelihood of the whole option"),
        Metric(name="loss", better="lower", unit="nats/byte", what="of the right option"),
    )

    def __init__(self, *, rows: Any) -> None:
        self.samples = [_choice(number, row) for number, row in enumerate(rows)]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """The question, and each option behind it."""
        options = tuple(f" {text}" for text in sample.data["options"])
        return Request(prompt=f"Question: {sample.data['question']}\nAnswer:", options=options)

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Which option is chosen, and what the right one costs."""
        right = sample.data["right"]
        each = [one.total / one.bytes for one in answer.options]
        total = [one.total for one in answer.options]
        return {
            "accuracy": float(_best(each) == right),
            "accuracy_sum": float(_best(total) == right),
            "loss": finite(-each[right]),
        }


class Cloze(Task):
    """The last word of a passage (LAMBADA): right where greedy decoding under the chain would write it.

    With ``letters`` the prompt is cut inside the word, behind so many of its letters (its last one is always asked).
    """

    metrics = (
        Metric(name="accuracy", better="higher", binary=True, what="every token of the word is the likeliest one"),
        Metric(name="loss", better="lower", unit="nats/word", what="negative log-likelihood of the word"),
        Metric(name="impossible", better="lower", binary=True, what="the chain makes the word impossible"),
    )

    def __init__(
        self, *, rows: Any, letters: Annotated[int, whole("letters of the word that are given", ge=0)] = 0
    ) -> None:
        self.samples = []
        for number, row in enumerate(rows):
            before, _, word = str(row["text"]).rstrip().rpartition(" ")
            if not before or not word:
                raise FileFormatError(f"lambada: row {number} must be a text of two words or more, got {row['text']!r}")
            given = f" {word[: min(letters, len(word) - 1)]}" if letters else ""
            data = {"before": before + given, "word": f" {word}"[len(given) :]}
            self.samples.append(Sample(id=str(number), data=data))

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """The passage and its last word."""
        return Request(prompt=sample.data["before"], options=(sample.data["word"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Whether the word would be written, and how surprising it is."""
        (one,) = answer.options
        return {
            "accuracy": float(all(one.greedy)),
            "loss": finite(-one.total),
            "impossible": float(math.isinf(one.total)),
        }


class Passages(Task):
    """How well the chain's law predicts real text: the second part of passages, after the first."""

    metrics = (
        Metric(name="bits_per_byte", better="lower", unit="bits/byte", what="of the text that really follows"),
        Metric(name="impossible", better="lower", binary=True, what="the chain makes the text impossible"),
    )

    def __init__(
        self,
        *,
        rows: Any,
        words: Annotated[int, whole("words of the first part", ge=1)] = 60,
        after: Annotated[int, whole("words of the second part", ge=1)] = 20,
        field: Annotated[str, option("where a row holds its text")] = "text",
    ) -> None:
        self.samples = passages(rows, field=field, words=words, after=after)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Both parts."""
        return Request(prompt=sample.data["before"], options=(sample.data["after"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Bits per byte of the second part."""
        (one,) = answer.options
        return {"bits_per_byte": finite(-_per_byte(one) / math.log(2)), "impossible": float(math.isinf(one.total))}


class Span(Task):
    """How well the chain's law predicts a span of a program, from what stands before it.

    Rows are those of HumanEval infilling. Spans begin anywhere, inside a token too.
    """

    metrics = (
        Metric(name="bits_per_byte", better="lower", unit="bits/byte", what="of the span that was there"),
        Metric(name="impossible", better="lower", binary=True, what="the chain makes the span impossible"),
    )

    def __init__(self, *, rows: Any) -> None:
        self.samples = [
            Sample(id=str(row["task_id"]), data={name: row[name] for name in ("prompt", "canonical_solution")})
            for row in rows
        ]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """What stands before, and the span."""
        return Request(prompt=sample.data["prompt"], options=(sample.data["canonical_solution"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Bits per byte of the span."""
        (one,) = answer.options
        return {"bits_per_byte": finite(-_per_byte(one) / math.log(2)), "impossible": float(math.isinf(one.total))}


def _per_byte(one: Scored) -> float:
    return one.total / one.bytes


def _best(values: Sequence[float]) -> int:
    """The first of the largest values; -1 where all options are impossible."""
    return max(range(len(values)), key=values.__getitem__) if max(values) > -math.inf else -1


def _choice(number: int, row: dict[str, Any]) -> Sample:
    """One question in either form of ARC.

    Raises:
        FileFormatError: another form, or a key that is no label.
    """
    try:
        question, choices = row["question"], row.get("choices")
        if choices is None:
            question, listed = question["stem"], question["choices"]
            texts, labels = [one["text"] for one in listed], [one["label"] for one in listed]
        else:
            texts, labels = list(choices["text"]), list(choices["label"])
        right = labels.index(row["answerKey"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"choice: row {number} must have question, choices and answerKey, got {row!r}") from error
    data = {"question": question, "options": texts, "right": right}
    return Sample(id=str(row.get("id", number)), data=data)
