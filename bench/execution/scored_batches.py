"""Scores the options of samples in batches of similar length, so that little of a batch is padding."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from logitkit.bench.tasks.task import Request
from logitkit.processors.engine.trace import Trace
from logitkit.registry.chain import Chain
from logitkit.registry.scored_text import Scored
from logitkit.registry.scoring import score

WINDOW = 8  # batches whose samples are sorted by length together; a unit of a scored task holds them


class Subject(NamedTuple):
    """What a unit runs: a chain with its resources, on a model."""

    chain: Chain
    model: Any
    tokenizer: Any
    resources: Mapping[str, Any]
    tokenizers: Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredOptions:
    """The scores of the options of one sample.

    Attributes:
        options: one score per option.
        trace: the trace of the batch.
        steps: number of tokens of the longest option of the batch.
        seconds: time of the batch divided by its samples.
    """

    options: tuple[Scored, ...]
    trace: Trace
    steps: int
    seconds: float


def score_requests(requests: Sequence[Request], subject: Subject, *, batch: int) -> list[ScoredOptions]:
    """Score the options of every request under the chain.

    Args:
        requests: requests with one or more options each.
        subject: the chain with its resources, on a model.
        batch: number of requests that are scored together. Requests of similar length share a batch.

    Returns:
        The scores in the order of the requests. They do not depend on ``batch`` but for rounding.

    Examples:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> subject = Subject(Chain("cfg(1.5)"), tiny_model(), tiny_tokenizer(), {}, {})
        >>> requests = [Request(prompt="a long prompt", options=(" a", " b")), Request(prompt="short", options=(" c",))]
        >>> [len(scored.options) for scored in score_requests(requests, subject, batch=2)]
        [2, 1]
    """
    order = list(range(len(requests)))
    if batch > 1:
        lengths = [_length(request, subject.tokenizer) for request in requests]
        order.sort(key=lengths.__getitem__)
    scored: dict[int, ScoredOptions] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        scored.update(zip(chosen, _score_together([requests[place] for place in chosen], subject), strict=True))
    return [scored[place] for place in range(len(requests))]


def _length(request: Request, tokenizer: Any) -> int:
    """Return the number of tokens of a request with its longest option."""
    return max(len(tokenizer(f"{request.prompt}{option}")["input_ids"]) for option in request.options)


def _score_together(requests: Sequence[Request], subject: Subject) -> list[ScoredOptions]:
    """Score the options of all requests in one batch."""
    prompts = [str(request.prompt) for request in requests for _ in request.options]
    options = [option for request in requests for option in request.options]
    begun = time.perf_counter()
    rows, call = score(
        subject.chain,
        subject.model,
        subject.tokenizer,
        prompts,
        options,
        resources=subject.resources,
        tokenizers=subject.tokenizers,
        warn=False,  # a neutral value in a sweep, and prompts without examples, are meant
    )
    shared: dict[str, Any] = {
        "trace": call.trace,
        "steps": max(len(row.logp) for row in rows),
        "seconds": (time.perf_counter() - begun) / len(requests),
    }
    left = iter(rows)
    return [ScoredOptions(options=tuple(next(left) for _ in request.options), **shared) for request in requests]
