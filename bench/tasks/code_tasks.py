"""Tasks whose answers are programs. They are run in a `logitkit.bench.tasks.sandbox`, only where that was allowed."""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from logitkit.bench.tasks.sandbox import Limits, execute
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task
from logitkit.errors import FileFormatError
from logitkit.params import number, option
from logitkit.processors.byte_level.boundary import SENTINELS

KS = (1, 5, 10, 100)  # k of pass@k; those of which a sample has answers enough
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ", "\n```")
Seconds = Annotated[float, number("that a program may run", gt=0, le=600)]


def pass_at(k: int, answers: int, right: int) -> float:
    """Unbiased estimate of the chance that one of ``k`` answers is right: ``1 - C(n - c, k) / C(n, k)``.

    Chen et al., arXiv:2107.03374, section 2.1.

    Args:
        k: 1 to ``answers``.
        answers: how many were made.
        right: how many of them are right.
    """
    return 1.0 - math.comb(answers - right, k) / math.comb(answers, k)


class _Programs(Task):
    """Tasks that are judged by running tests."""

    metrics = (
        Metric(name="pass_at_1", better="higher", binary=True, what="one answer passes the tests"),
        *(Metric(name=f"pass_at_{k}", better="higher", what=f"one of {k} answers passes") for k in KS[1:]),
    )

    def __init__(self, *, rows: Any, fields: Sequence[str], seconds: float) -> None:
        for number_, row in enumerate(rows):
            absent = [field for field in fields if field not in row]
            if absent:
                raise FileFormatError(f"{type(self).__name__}: row {number_} must have {absent[0]!r}, got {list(row)}")
        self.samples = [Sample(id=str(row["task_id"]), data={name: row[name] for name in fields}) for row in rows]
        self.limits = Limits(seconds=seconds)

    @abc.abstractmethod
    def program(self, sample: Sample, text: str) -> str:
        """The program that passes where an answer is right."""

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Whether the tests pass."""
        return {"pass_at_1": float(execute(self.program(sample, answer.text), self.limits).passed)}

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """pass@k for every k of which there are answers enough."""
        right = round(sum(answer["pass_at_1"] or 0.0 for answer in answers))
        return {f"pass_at_{k}": pass_at(k, len(answers), right) for k in KS if k <= len(answers)}


class HumanEval(_Programs):
    """Functions to be completed from their signature and docstring."""

    def __init__(self, *, rows: Any, seconds: Seconds = 5.0) -> None:
        super().__init__(rows=rows, fields=("task_id", "prompt", "test", "entry_point"), seconds=seconds)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """The function up to its body."""
        return Request(prompt=sample.data["prompt"], stops=STOPS)

    def program(self, sample: Sample, text: str) -> str:
        """Function, tests and their call."""
        data = sample.data
        return f"{data['prompt']}{text}\n{data['test']}\ncheck({data['entry_point']})\n"


class MBPP(_Programs):
    """Functions to be written from a sentence and one of their tests, given as a docstring."""

    def __init__(self, *, rows: Any, seconds: Seconds = 5.0) -> None:
        super().__init__(rows=rows, fields=("task_id", "prompt", "test_list", "test_imports"), seconds=seconds)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """The sentence and the first test."""
        text = f'"""\n{sample.data["prompt"]}\n{sample.data["test_list"][0]}\n"""\n'
        return Request(prompt=text, stops=(*(stop for stop in STOPS if stop != "\ndef "), '\n"""'))

    def program(self, sample: Sample, text: str) -> str:
        """Answer and all tests."""
        return "\n".join([text, *sample.data["test_imports"], *sample.data["test_list"]])


class Infilling(_Programs):
    """A random span of a solution, to be filled in.

    With ``fim`` the prompt holds what stands before and behind the span, in the tokenizer's own fill-in-the-middle
    format; with ``prefix`` only what stands before it, and the answer ends where the text behind the span begins.
    ``auto`` is ``fim`` where the tokenizer knows it.
    """

    metrics = (
        *_Programs.metrics,
        Metric(name="exact_match", better="higher", binary=True, what="the span itself, but for outer blanks"),
    )

    def __init__(
        self,
        *,
        rows: Any,
        seconds: Seconds = 5.0,
        form: Annotated[Literal["auto", "fim", "prefix"], option("how the span is asked for")] = "auto",
    ) -> None:
        fields = ("task_id", "prompt", "suffix", "test", "entry_point", "canonical_solution")
        super().__init__(rows=rows, fields=fields, seconds=seconds)
        self.form = form

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """What stands before the span, and, where the form has it, what stands behind."""
        before, behind = sample.data["prompt"], sample.data["suffix"]
        known = set(tokenizer.get_vocab())
        sentinels = next((three for three in SENTINELS if known.issuperset(three)), None)
        if self.form == "prefix" or (self.form == "auto" and sentinels is None):
            return Request(prompt=before, stops=_anchors(behind))
        first, middle, last = sentinels or SENTINELS[0]
        return Request(prompt=f"{first}{before}{middle}{behind}{last}")

    def program(self, sample: Sample, text: str) -> str:
        """The whole function with the span filled in, tests and their call."""
        data = sample.data
        return f"{data['prompt']}{text}{data['suffix']}\n{data['test']}\ncheck({data['entry_point']})\n"

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Whether the tests pass, and whether it is the span that was there."""
        same = answer.text.strip() == sample.data["canonical_solution"].strip()
        return {**super().judge(sample, answer), "exact_match": float(same)}

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """pass@k, and the mean of exact matches."""
        exact = sum(answer["exact_match"] or 0.0 for answer in answers) / len(answers)
        return {**super().combine(answers), "exact_match": exact}


def _anchors(behind: str) -> tuple[str, ...]:
    """The beginning of the text behind a span, long enough to be known when it is written again."""
    found = re.match(r"\s*\S[^\n]*", behind)
    return (found.group(0), *STOPS) if found and len(found.group(0).strip()) >= 2 else STOPS
