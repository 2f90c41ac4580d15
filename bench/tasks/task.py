"""The interface of a task: samples, the request for each sample, and the evaluation of an answer."""

from __future__ import annotations

import abc
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from logitkit.registry.scored_text import Scored


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quantity that is measured of each answer.

    Attributes:
        name: name in snake_case.
        better: whether higher or lower values are better; None for a quantity without a direction.
        unit: unit such as ``nats/token``; empty for a share from 0 to 1 or a bare number.
        binary: every sample has the value 0 or 1; strategies are then compared by McNemar's test.
        exponent: reports show exp of the mean, as for a perplexity whose samples are in nats per token.
        what: description in a few words.

    Examples:
        >>> Metric(name="accuracy", better="higher", binary=True, what="the right option is chosen").unit
        ''
    """

    name: str
    better: Literal["higher", "lower"] | None
    unit: str = ""
    binary: bool = False
    exponent: bool = False
    what: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One item of a task.

    Attributes:
        id: identifier of the item in the data.
        data: the item as plain data.

    Examples:
        >>> Sample(id="0", data={"text": "a"}).hash == Sample(id="0", data={"text": "b"}).hash
        False
    """

    id: str
    data: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """8 hex digits of the data, part of the key of a result: other data give other results."""
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """The request to a model for one sample.

    Attributes:
        prompt: text, or chat messages.
        options: texts that may follow the prompt and whose log-likelihoods are wanted (mode ``loglikelihood``).
        stops: texts that end a continuation; the continuation is cut before the first of them.

    Examples:
        >>> Request(prompt="2 + 2 =", options=(" 4", " 5")).stops
        ()
    """

    prompt: str | list[dict[str, str]]
    options: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """A model's answer to one request.

    Attributes:
        text: the continuation, cut before the first stop text.
        ids: token ids of the continuation before the cut, without padding.
        prompt_ids: token ids of the prompt.
        options: one score per option of the request.
        model, tokenizer: the generating model and its tokenizer, for metrics that need them.

    Examples:
        >>> answer = Answer(options=(Scored(logp=(-1.0, -0.5), greedy=(True, False), bytes=4),))
        >>> answer.options[0].total
        -1.5
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    options: tuple[Scored, ...] = ()
    model: Any = field(default=None, repr=False)
    tokenizer: Any = field(default=None, repr=False)


class Task(abc.ABC):
    """A task of the benchmark. Plugins subclass it and offer the subclass by the hook ``logitkit_tasks``.

    The constructor takes ``rows`` (the data, a list of mappings) and annotated keyword parameters. It must be fast.

    Attributes:
        metrics: the metrics; strategies are compared by the first one.
        samples: the samples, in the order of the data.

    Examples:
        >>> class Parity(Task):
        ...     metrics = (Metric(name="accuracy", better="higher", binary=True),)
        ...     def __init__(self, *, rows):
        ...         self.samples = [Sample(id=str(row["n"]), data=row) for row in rows]
        ...     def request(self, sample, tokenizer):
        ...         return Request(prompt=f"Is {sample.data['n']} even? Answer:", stops=(".",))
        ...     def judge(self, sample, answer):
        ...         return {"accuracy": float(answer.text.strip() == ("no" if sample.data["n"] % 2 else "yes"))}
        >>> task = Parity(rows=[{"n": 3}])
        >>> task.judge(task.samples[0], Answer(text=" no"))
        {'accuracy': 1.0}
    """

    metrics: ClassVar[tuple[Metric, ...]]
    samples: Sequence[Sample]

    @abc.abstractmethod
    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the request for a sample, for a model with this tokenizer."""

    @abc.abstractmethod
    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the metrics of one answer by name; None for an infinite value."""

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """Return the metrics of a sample, given the metrics of its repeated answers: their means."""
        return {name: mean([answer[name] for answer in answers]) for name in answers[0]}


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None, which stands for infinity, if a value is None.

    Examples:
        >>> mean([1.0, 2.0]), mean([1.0, None])
        (1.5, None)
    """
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if len(numbers) == len(values) else None


def finite(value: float) -> float | None:
    """Return the value, or None if it is infinite: records are JSON, which has no infinity.

    Examples:
        >>> finite(0.5), finite(float("inf"))
        (0.5, None)
    """
    return value if abs(value) != float("inf") else None
