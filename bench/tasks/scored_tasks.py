"""Tasks that score given texts: the metrics are computed from log-likelihoods under the chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from logitkit.bench.tasks.passages import cut_passages
from logitkit.bench.tasks.sentences import SENTENCES
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task, finite
from logitkit.errors import FileFormatError
from logitkit.params import option, whole
from logitkit.registry.scored_text import Scored

Rows = list[dict[str, Any]]


class Choice(Task):
    """Multiple choice: the option with the largest log-likelihood per byte is chosen. A tie goes to the first option.

    Args:
        rows: rows of ARC (arXiv:1803.05457) in either of its forms. The first form has ``question.stem`` and
            ``question.choices``, a list of objects with ``text`` and ``label``. The second has ``question`` and
            ``choices``, an object with the lists ``text`` and ``label``. ``answerKey`` is the right label.

    Examples:
        >>> choices = {"text": ["no", "yes"], "label": ["A", "B"]}
        >>> task = Choice(rows=[{"question": "Is 2 even?", "choices": choices, "answerKey": "B"}])
        >>> task.request(task.samples[0], None).options
        (' no', ' yes')
    """

    metrics = (
        Metric(
            name="accuracy",
            better="higher",
            binary=True,
            what="the right option is the most likely one per byte",
        ),
        Metric(name="accuracy_sum", better="higher", binary=True, what="the right option is the most likely one"),
        Metric(name="loss", better="lower", unit="nats/byte", what="negative log-likelihood of the right option"),
    )

    def __init__(self, *, rows: Any) -> None:
        self.samples = [_choice(number, row) for number, row in enumerate(rows)]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the question as the prompt, and the options."""
        options = tuple(f" {text}" for text in sample.data["options"])
        return Request(prompt=f"Question: {sample.data['question']}\nAnswer:", options=options)

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return whether the right option is chosen, and its negative log-likelihood per byte."""
        right = sample.data["right"]
        per_byte = [_per_byte(option) for option in answer.options]
        total = [option.total for option in answer.options]
        return {
            "accuracy": float(_best(per_byte) == right),
            "accuracy_sum": float(_best(total) == right),
            "loss": finite(-per_byte[right]),
        }


class Cloze(Task):
    """Predict the last word of a passage (LAMBADA, arXiv:1606.06031).

    The word counts as right if greedy decoding under the chain would write it.

    Args:
        rows: rows with ``text``.
        letters: number of letters of the last word that are part of the prompt; at least one letter is predicted.

    Examples:
        >>> Cloze(rows=[{"text": "it was a dog"}], letters=2).samples[0].data
        {'before': 'it was a do', 'word': 'g'}
    """

    metrics = (
        Metric(name="accuracy", better="higher", binary=True, what="every token of the word is the most probable one"),
        Metric(name="loss", better="lower", unit="nats/word", what="negative log-likelihood of the word"),
        Metric(name="impossible", better="lower", binary=True, what="the word has probability zero under the chain"),
    )

    def __init__(
        self,
        *,
        rows: Any,
        letters: Annotated[int, whole("letters of the last word in the prompt", ge=0)] = 0,
    ) -> None:
        self.samples = []
        for number, row in enumerate(rows):
            before, _, word = str(row["text"]).rstrip().rpartition(" ")
            if not before or not word:
                raise FileFormatError(f"lambada: row {number} must be a text of two words or more, got {row['text']!r}")
            start = f" {word[: min(letters, len(word) - 1)]}" if letters else ""
            data = {"before": before + start, "word": f" {word}"[len(start) :]}
            self.samples.append(Sample(id=str(number), data=data))

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the passage as the prompt, and the last word as the option."""
        return Request(prompt=sample.data["before"], options=(sample.data["word"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return whether greedy decoding writes the word, its loss, and whether it is impossible."""
        (word,) = answer.options
        return {
            "accuracy": float(all(word.greedy)),
            "loss": finite(-word.total),
            "impossible": float(math.isinf(word.total)),
        }


class Sentences(Cloze):
    """Predict the last word of short sentences; the sentences are part of logitkit.

    Args:
        rows: rows with ``text`` in place of the built-in sentences; empty: the built-in ones.
        letters: number of letters of the last word that are part of the prompt.

    Examples:
        >>> task = Sentences(rows=[])
        >>> len(task.samples), task.samples[3].data["word"]
        (60, ' cake')
    """

    def __init__(
        self,
        *,
        rows: Any,
        letters: Annotated[int, whole("letters of the last word in the prompt", ge=0)] = 0,
    ) -> None:
        super().__init__(rows=rows or [{"text": text} for text in SENTENCES], letters=letters)


class CutSentences(Sentences):
    """`Sentences` whose prompts end inside the last word, as if somebody were typing it.

    Examples:
        >>> CutSentences(rows=[]).samples[3].data["word"]
        'ke'
    """

    def __init__(
        self,
        *,
        rows: Any,
        letters: Annotated[int, whole("letters of the last word in the prompt", ge=0)] = 2,
    ) -> None:
        super().__init__(rows=rows, letters=letters)


class Passages(Task):
    """Predict the second part of passages of real text, after the first part.

    Args:
        rows: rows with a text.
        words: number of words in the first part.
        after: number of words in the second part.
        field: field of a row that holds its text.

    Examples:
        >>> task = Passages(rows=[{"text": "one two three"}], words=2, after=1)
        >>> task.request(task.samples[0], None).options
        (' three',)
    """

    metrics = (
        Metric(name="bits_per_byte", better="lower", unit="bits/byte", what="log-loss of the second part"),
        Metric(name="impossible", better="lower", binary=True, what="the text has probability zero under the chain"),
    )

    def __init__(
        self,
        *,
        rows: Any,
        words: Annotated[int, whole("words in the first part", ge=1)] = 60,
        after: Annotated[int, whole("words in the second part", ge=1)] = 20,
        field: Annotated[str, option("field of a row that holds its text")] = "text",
    ) -> None:
        self.samples = cut_passages(rows, field=field, words=words, after=after)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the first part as the prompt, and the second as the option."""
        return Request(prompt=sample.data["before"], options=(sample.data["after"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the bits per byte of the second part, and whether it is impossible."""
        return _bits_per_byte(answer)


class Span(Task):
    """Predict a span of a program from the text before it.

    Args:
        rows: rows of HumanEval infilling (arXiv:2207.14255). Spans may begin inside a token.

    Examples:
        >>> task = Span(rows=[{"task_id": "0", "prompt": "x = ", "canonical_solution": "1"}])
        >>> task.request(task.samples[0], None).options
        ('1',)
    """

    metrics = (
        Metric(name="bits_per_byte", better="lower", unit="bits/byte", what="log-loss of the original span"),
        Metric(name="impossible", better="lower", binary=True, what="the span has probability zero under the chain"),
    )

    def __init__(self, *, rows: Any) -> None:
        self.samples = [
            Sample(id=str(row["task_id"]), data={name: row[name] for name in ("prompt", "canonical_solution")})
            for row in rows
        ]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the text before the span as the prompt, and the span as the option."""
        return Request(prompt=sample.data["prompt"], options=(sample.data["canonical_solution"],))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the bits per byte of the span, and whether it is impossible."""
        return _bits_per_byte(answer)


def _per_byte(option: Scored) -> float:
    """Return the log-likelihood per byte, in nats."""
    return option.total / option.bytes


def _bits_per_byte(answer: Answer) -> dict[str, float | None]:
    """Return the metrics of an answer with one option: bits per byte, and whether the option is impossible."""
    (option_,) = answer.options
    bits = -_per_byte(option_) / math.log(2)
    return {"bits_per_byte": finite(bits), "impossible": float(math.isinf(option_.total))}


def _best(values: Sequence[float]) -> int:
    """Return the index of the first largest value; -1 if all options are impossible."""
    return max(range(len(values)), key=values.__getitem__) if max(values) > -math.inf else -1


def _choice(number: int, row: dict[str, Any]) -> Sample:
    """Return one row of ARC as a sample.

    Raises:
        FileFormatError: the row has neither form, or its ``answerKey`` is not one of its labels.
    """
    try:
        question, choices = row["question"], row.get("choices")
        if choices is None:
            question, listed = question["stem"], question["choices"]
            texts, labels = [choice["text"] for choice in listed], [choice["label"] for choice in listed]
        else:
            texts, labels = list(choices["text"]), list(choices["label"])
        right = labels.index(row["answerKey"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"choice: row {number} must have question, choices and answerKey, got {row!r}") from error
    data = {"question": question, "options": texts, "right": right}
    return Sample(id=str(row.get("id", number)), data=data)
