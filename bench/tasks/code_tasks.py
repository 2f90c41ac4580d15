"""Tasks whose answers are programs. The programs run in a `logitkit.bench.tasks.sandbox`, if the run allows it."""

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
from logitkit.processors.byte_level.prompt_trimming import SENTINELS

KS = (1, 5, 10, 100)  # values k of pass@k; reported for those with k <= answers per sample
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ", "\n```")
Seconds = Annotated[float, number("time limit of a program in seconds", gt=0, le=600)]


def pass_at(k: int, answers: int, right: int) -> float:
    """Return the unbiased estimate of the probability that one of ``k`` answers passes: ``1 - C(n - c, k) / C(n, k)``.

    Chen et al., arXiv:2107.03374, section 2.1.

    Args:
        k: number of answers drawn, 1 to ``answers``.
        answers: number of generated answers ``n``.
        right: number of passing answers ``c``.

    Examples:
        >>> pass_at(1, answers=5, right=2)
        0.4
    """
    return 1.0 - math.comb(answers - right, k) / math.comb(answers, k)


class _Programs(Task):
    """Base of the tasks whose answers are evaluated by running tests."""

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
    def program(self, sample: Sample, text: str) -> tuple[str, str]:
        """Return the program with the answer ``text``, and tests that raise an exception if the answer is wrong."""

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return whether the tests pass."""
        program, tests = self.program(sample, answer.text)
        return {"pass_at_1": float(execute(program, self.limits, tests=tests).passed)}

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """Return pass@k for every k that is at most the number of answers."""
        right = round(sum(answer["pass_at_1"] or 0.0 for answer in answers))
        return {f"pass_at_{k}": pass_at(k, len(answers), right) for k in KS if k <= len(answers)}


class HumanEval(_Programs):
    """Complete a function, given its signature and docstring. arXiv:2107.03374.

    Args:
        rows: rows with ``task_id``, ``prompt``, ``test`` and ``entry_point``.
        seconds: time limit of a program.

    Examples:
        >>> row = {"task_id": "0", "prompt": "def f():", "test": "def check(f): assert f() == 1", "entry_point": "f"}
        >>> task = HumanEval(rows=[row])
        >>> task.judge(task.samples[0], Answer(text=" return 1"))
        {'pass_at_1': 1.0}
    """

    def __init__(self, *, rows: Any, seconds: Seconds = 5.0) -> None:
        super().__init__(rows=rows, fields=("task_id", "prompt", "test", "entry_point"), seconds=seconds)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return signature and docstring as the prompt."""
        return Request(prompt=sample.data["prompt"], stops=STOPS)

    def program(self, sample: Sample, text: str) -> tuple[str, str]:
        """Return the function, its tests and the call of the tests."""
        data = sample.data
        return f"{data['prompt']}{text}\n", f"{data['test']}\ncheck({data['entry_point']})\n"


class MBPP(_Programs):
    """Write a function, given a sentence and one of its tests in a docstring. arXiv:2108.07732.

    Args:
        rows: rows with ``task_id``, ``prompt``, ``test_list`` and ``test_imports``.
        seconds: time limit of a program.

    Examples:
        >>> row = {"task_id": 1, "prompt": "Add.", "test_list": ["assert add(1, 2) == 3"], "test_imports": []}
        >>> task = MBPP(rows=[row])
        >>> task.request(task.samples[0], None).prompt.splitlines()[1:3]
        ['Add.', 'assert add(1, 2) == 3']
    """

    def __init__(self, *, rows: Any, seconds: Seconds = 5.0) -> None:
        super().__init__(rows=rows, fields=("task_id", "prompt", "test_list", "test_imports"), seconds=seconds)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the sentence and the first test as the prompt."""
        text = f'"""\n{sample.data["prompt"]}\n{sample.data["test_list"][0]}\n"""\n'
        return Request(prompt=text, stops=(*(stop for stop in STOPS if stop != "\ndef "), '\n"""'))

    def program(self, sample: Sample, text: str) -> tuple[str, str]:
        """Return the answer with the imports of the tests, and all tests."""
        return "\n".join([text, *sample.data["test_imports"]]), "\n".join(sample.data["test_list"])


class Infilling(_Programs):
    r"""Fill in a random span of a solution. arXiv:2207.14255.

    Args:
        rows: rows with ``task_id``, ``prompt``, ``suffix``, ``test``, ``entry_point`` and ``canonical_solution``.
        seconds: time limit of a program.
        form: the prompt. ``fim`` holds the text before and after the span in the tokenizer's own fill-in-the-middle
            format. ``prefix`` holds only the text before the span, and the answer ends where the text after the span
            begins. ``auto`` is ``fim`` if the tokenizer has the tokens for it, else ``prefix``.

    Examples:
        >>> row = {"task_id": "0", "prompt": "x = ", "suffix": "\n", "test": "", "entry_point": "f"}
        >>> task = Infilling(rows=[{**row, "canonical_solution": "1"}], form="prefix")
        >>> task.request(task.samples[0], None).prompt
        'x = '
    """

    metrics = (
        *_Programs.metrics,
        Metric(name="exact_match", better="higher", binary=True, what="equals the span, up to outer white space"),
    )

    def __init__(
        self,
        *,
        rows: Any,
        seconds: Seconds = 5.0,
        form: Annotated[Literal["auto", "fim", "prefix"], option("form of the prompt")] = "auto",
    ) -> None:
        fields = ("task_id", "prompt", "suffix", "test", "entry_point", "canonical_solution")
        super().__init__(rows=rows, fields=fields, seconds=seconds)
        self.form = form

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the text before the span and, in the form ``fim``, the text after it."""
        before, after = sample.data["prompt"], sample.data["suffix"]
        if self.form == "prefix":
            return Request(prompt=before, stops=_stops_at(after))
        known = set(tokenizer.get_vocab())
        sentinels = next((three for three in SENTINELS if known.issuperset(three)), None)
        if self.form == "auto" and sentinels is None:
            return Request(prompt=before, stops=_stops_at(after))
        first, middle, last = sentinels or SENTINELS[0]
        return Request(prompt=f"{first}{before}{middle}{after}{last}")

    def program(self, sample: Sample, text: str) -> tuple[str, str]:
        """Return the function with the span filled in, its tests and the call of the tests."""
        data = sample.data
        return f"{data['prompt']}{text}{data['suffix']}\n", f"{data['test']}\ncheck({data['entry_point']})\n"

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return whether the tests pass, and whether the answer equals the original span."""
        same = answer.text.strip() == sample.data["canonical_solution"].strip()
        return {**super().judge(sample, answer), "exact_match": float(same)}

    def combine(self, answers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """Return pass@k and the mean of the exact matches."""
        exact = sum(answer["exact_match"] or 0.0 for answer in answers) / len(answers)
        return {**super().combine(answers), "exact_match": exact}


def _stops_at(after: str) -> tuple[str, ...]:
    """Return stop texts: the first line of the text after a span, if that is long enough, and `STOPS`."""
    line = re.match(r"\s*\S[^\n]*", after)
    return (line.group(0), *STOPS) if line and len(line.group(0).strip()) >= 2 else STOPS
