"""Runs of the studies of programs: answers that a results file lacks, and verdicts that it lacks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logitkit import models
from logitkit.execution import PerProcess
from studies.evidence import half_of
from studies.guided_answers import Programs, Unit, answers, passes, units
from studies.records import append_record, write_records
from studies.units import run_units


@dataclass(kw_only=True)
class GuidedRun:
    """A run that continues a results file.

    Args:
        task: the problems.
        out: the results file.
        settings: the settings of each of its records: ``model`` and ``max_new_tokens``.
        records: its records so far.
        like: dtype and device of the model, see `studies.units.placed`.
        batch: problems that are decoded together.
        engine: name of the engine.
    """

    task: Programs
    out: Path
    settings: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    like: Any
    batch: int
    engine: str

    def decode(self, arms: Sequence[str], items: Sequence[str]) -> None:
        """Write the answers of these arms to these problems that the results file lacks."""
        load = functools.partial(models.load, self.settings["model"], like=self.like)
        job = functools.partial(_job, PerProcess(load), self.task, self.settings["max_new_tokens"])
        missing = list(units(self.records, arms, items, self.batch))
        run_units(job, missing, self._keep, engine=self.engine, title="batches")

    def _keep(self, unit: Unit, found: list[dict[str, Any]]) -> None:
        """Keep the answers of a unit."""
        for item, record in zip(unit[1], found, strict=True):
            known = {"settings": self.settings, "arm": unit[0], "item": item, "half": half_of(item)}
            self.records.append(known | record)
            append_record(self.out, self.records[-1])

    def judge(self) -> None:
        """Execute the answers that have no verdict, and write the verdicts into the results file."""
        of_answer: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in self.records:
            if "passed" not in record:
                of_answer.setdefault((record["item"], record["text"]), []).append(record)

        def keep(answer: tuple[str, str], passed: bool) -> None:
            for record in of_answer[answer]:
                record["passed"] = passed

        if of_answer:
            job = functools.partial(passes, self.task)
            try:
                run_units(job, list(of_answer), keep, engine=self.engine, title="programs")
            finally:
                write_records(self.out, self.records)


def _job(loaded: PerProcess[tuple[Any, Any]], task: Programs, tokens: int, unit: Unit) -> list[dict[str, Any]]:
    """Return the answers of a unit; see `answers`."""
    return answers(loaded.value, task, tokens, unit)
