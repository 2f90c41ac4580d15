"""What a task is: samples, what is asked for each, and how an answer is judged."""

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
    """What is measured of an answer.

    Attributes:
        name: snake_case.
        better: which way is better; None: neither.
        unit: such as ``nats/token``; empty: a share from 0 to 1 or a bare number.
        binary: each sample has 0 or 1, so strategies are compared by McNemar's test.
        exponent: what is shown is exp of the mean, as perplexity is of nats per token.
        what: one sentence.
    """

    name: str
    better: Literal["higher", "lower"] | None
    unit: str = ""
    binary: bool = False
    exponent: bool = False
    what: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One item of a task: its id in the data, and the data."""

    id: str
    data: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """8 hex digits of the data: results of other data are other results."""
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What is asked of a model for one sample.

    Attributes:
        prompt: text, or chat messages.
        options: texts that may follow the prompt, to be scored (mode ``loglikelihood``).
        stops: texts at which a continuation ends; what follows the first of them is cut off.
    """

    prompt: str | list[dict[str, str]]
    options: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What came back for one sample.

    Attributes:
        text: the continuation, cut at a stop.
        ids: its token ids, before the cut, without end and padding.
        prompt_ids: the token ids of the prompt.
        options: the scores, one for each option asked for.
        model, tokenizer: who answered; for metrics that ask the model itself.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    options: tuple[Scored, ...] = ()
    model: Any = field(default=None, repr=False)
    tokenizer: Any = field(default=None, repr=False)


class Task(abc.ABC):
    """A task. Third parties subclass it and offer it by the hook ``logitkit_tasks``.

    A constructor takes ``rows`` (the data, a list of mappings) and annotated keyword parameters; it must be cheap.

    Attributes:
        metrics: the first one is what strategies are compared by.
        samples: the items, in the order of the data.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    samples: Sequence[Sample]

    @abc.abstractmethod
    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """What is asked for a sample, of a model with this tokenizer."""

    @abc.abstractmethod
    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Metrics of one answer by name; None where it is infinite."""

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """Metrics of one sample from those of its repeated answers: their means."""
        return {name: mean([answer[name] for answer in answers]) for name in answers[0]}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None (infinite) where one is."""
    finite = [value for value in values if value is not None]
    return statistics.fmean(finite) if len(finite) == len(values) else None


def finite(value: float) -> float | None:
    """The number, or None where it is infinite, as records hold it."""
    return value if abs(value) != float("inf") else None
