"""The settings of the study of programs, and its records: which setting is chosen, and who answered what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from studies.guided_answers import Records

METHODS = {  # the settings of each method, the one that is judged without tuning first
    "uscd": ("uscd()", "uscd(gate=0.626)"),
    "mti": ("mti()", "mti(threshold=2.0)"),
    "adadec": ("adadec(threshold=2.0)", "adadec(threshold=1.0)"),
}
SETTINGS = tuple(setting for group in METHODS.values() for setting in group)
CONTROL = "adadec(threshold=inf)"  # plain decoding in the loop of the search
ByArm = dict[str, list[dict[str, Any]]]  # the records of each arm, problem by problem


def chosen_settings(records: Records) -> dict[str, str]:
    """Return for each method the setting that passes most development problems; of equal ones the first.

    Problems that a setting has not answered do not count, so that it is the first setting if nothing was tuned.
    """
    solved = dict.fromkeys(SETTINGS, 0)
    for record in answered(records, "development", solved):
        if record["arm"] in solved and "passed" in record:
            solved[record["arm"]] += record["passed"]
    return {method: max(group, key=solved.__getitem__) for method, group in METHODS.items()}


def answered(records: Records, half: str | None, arms: Iterable[str]) -> Records:
    """Return the records of the problems of a half, or of all, that all these arms have answered."""
    by_item: dict[str, set[str]] = {}
    for record in records:
        if half in (None, record["half"]):
            by_item.setdefault(record["item"], set()).add(record["arm"])
    return [r for r in records if by_item.get(r["item"], set()) >= set(arms)]


def by_arm(records: Records) -> ByArm:
    """Return the records of each arm, the problems in the same order."""
    found: ByArm = {}
    for record in sorted(records, key=lambda record: str(record["item"])):
        found.setdefault(record["arm"], []).append(record)
    return found


def points(records: Records) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 100 for each answer that passes, else 0."""
    return np.array([100.0 * record["passed"] for record in records])


def changed(own: Records, plain: Records) -> int:
    """Return how many answers differ from those of plain decoding."""
    return sum(one["text"] != other["text"] for one, other in zip(own, plain, strict=True))
