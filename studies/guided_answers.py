"""Answers of the studies of programs: problems, decoded in batches, with guided steps and cost; and verdicts."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from logitkit.bench.execution.sampling import continue_prompts, pinned_settings
from logitkit.bench.tasks import MBPP, Answer, HumanEval, Sample
from logitkit.processors.engine.trace import Trace
from logitkit.registry import Chain
from studies.stamps import clock_of

Unit = tuple[str, tuple[str, ...]]  # an arm and the names of the problems that it decodes together
Records = Sequence[dict[str, Any]]
Programs = MBPP | HumanEval


def mbpp(data: Path, problems: int) -> MBPP:
    """Return the first problems of the sanitised MBPP, in the order of a hash of their numbers.

    Args:
        data: folder with ``sanitized-mbpp.json``.
        problems: number of problems; a larger number adds problems and keeps the others.
    """
    rows = json.loads((data / "sanitized-mbpp.json").read_text(encoding="utf-8"))
    rows.sort(key=lambda row: hashlib.sha256(f"order of MBPP/{row['task_id']}".encode()).hexdigest())
    # Problems of similar length share a batch, in which every row waits for the longest answer.
    return MBPP(rows=sorted(rows[:problems], key=lambda row: len(row["code"])))


def humaneval(data: Path) -> HumanEval:
    """Return all problems of HumanEval, those of similar length side by side.

    Args:
        data: folder with ``HumanEval.jsonl.gz``.
    """
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return HumanEval(rows=sorted(rows, key=lambda row: len(row["canonical_solution"])))


def item_of(sample: Sample) -> str:
    """Return the name of a problem; those of HumanEval name their set, those of MBPP are numbers."""
    return sample.id if "/" in sample.id else f"MBPP/{sample.id}"


def answers(loaded: tuple[Any, Any], task: Programs, tokens: int, unit: Unit) -> list[dict[str, Any]]:
    """Return the greedy answers of an arm to some problems.

    Args:
        loaded: model and tokenizer.
        task: the problems.
        tokens: largest number of tokens of an answer.
        unit: arm and problems. The arm is a chain; the empty one is plain decoding.

    Returns:
        For each problem the text, its number of tokens, the seconds of the batch (on a CPU of processor time) divided
        by its rows, the number of rows, and the share of guided steps (of AdaDec: of the batch).
    """
    arm, items = unit
    model, tokenizer = loaded
    by_name = {item_of(sample): sample for sample in task.samples}
    samples = [by_name[item] for item in items]
    requests = [task.request(sample, tokenizer) for sample in samples]
    fired: list[Tensor] = []
    with pinned_settings(model):
        call = Chain(arm).bind(model, tokenizer, [str(request.prompt) for request in requests])
        keep_fired(call.trace, fired)
        clock = clock_of(model.device)
        start = clock()
        rows = continue_prompts(call, max_new_tokens=tokens, stops=[request.stops for request in requests])
        seconds = (clock() - start) / len(rows)
    shares = guided_shares(call.trace, fired, [len(ids) for _, ids in rows])
    found = []
    for (text, ids), share in zip(rows, shares, strict=True):
        cost = {"seconds": round(seconds, 3), "batch": len(rows)}
        found.append({"text": text, "tokens": len(ids), **cost, "guided": round(share, 4)})
    return found


def passes(task: Programs, answer: tuple[str, str]) -> bool:
    """Return whether an answer passes the tests of its problem; executes it in the sandbox of the benchmark.

    Args:
        task: the problems.
        answer: name of the problem, and the text.
    """
    (sample,) = (sample for sample in task.samples if item_of(sample) == answer[0])
    return bool(task.judge(sample, Answer(text=answer[1]))["pass_at_1"])


def keep_fired(trace: Trace, steps: list[Tensor]) -> None:
    """Append to a list on which rows the method acts at each step, bool ``[rows]``, of steps to come.

    A trace that records its steps knows this too, at an eighth of the cost of a step.
    """
    count = trace.count_fired

    def kept(name: str, fired: Tensor) -> None:
        steps.append(fired)
        count(name, fired)

    trace.count_fired = kept  # type: ignore[method-assign]


def guided_shares(trace: Trace, fired: Sequence[Tensor], lengths: Sequence[int]) -> list[float]:
    """Return for each row the share of its steps at which a method acted.

    Args:
        trace: the trace of the call.
        fired: on which rows the method acted at each step, see `keep_fired`.
        lengths: number of new tokens of each row; later steps only wait for longer rows.
    """
    if trace.search is not None:  # AdaDec counts over all rows
        notes = trace.search.notes
        return [notes["compared tokens"] / max(1, notes["new tokens"])] * len(lengths)
    counts = [sum(bool(rows[row]) for rows in fired[:length]) for row, length in enumerate(lengths)]
    return [count / max(1, length) for count, length in zip(counts, lengths, strict=True)]


def units(records: Records, arms: Sequence[str], items: Sequence[str], batch: int) -> Iterator[Unit]:
    """Yield the units that are missing: all arms on a batch before the next batch, so that their times are paired.

    The arms take turns in being first.

    Args:
        records: the records so far.
        arms: the arms.
        items: names of the problems, similar ones side by side.
        batch: problems that are decoded together.
    """
    done = {(record["arm"], record["item"]) for record in records}
    for number, start in enumerate(range(0, len(items), batch)):
        first = number % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            part = tuple(item for item in items[start : start + batch] if (arm, item) not in done)
            if part:
                yield arm, part
