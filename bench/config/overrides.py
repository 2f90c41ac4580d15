"""Settings of the command line that replace those of a run file, for a quick trial of a long run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logitkit.errors import ParameterError, closest

Place = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Settings in place of those of a run file.

    Attributes:
        chosen: names of entries by section (``models``, ``chains``, ``tasks``); the others are left out of the run.
            A section that is absent keeps all its entries. The baseline is always kept, and the name of a sweep
            stands for all its chains.
        settings: settings of every task, such as ``samples``.
        seeds: seeds of the sampling; empty: those of the file.
        rounds: rounds that measure cost; None: those of the file.

    Examples:
        >>> data = {"models": {}, "chains": {}, "tasks": {"arc": {"task": "arc", "samples": 200}}}
        >>> Overrides(settings={"samples": 3}).apply(data)
        []
        >>> data["tasks"]
        {'arc': {'task': 'arc', 'samples': 3}}
    """

    chosen: Mapping[str, list[str]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    rounds: int | None = None

    def apply(self, data: dict[str, Any]) -> list[Place]:
        """Change the data of a run in which all entries are written out.

        Args:
            data: the data; changed in place.

        Returns:
            The places of the entries that were left out.

        Raises:
            ParameterError: a chosen name that no entry has.
        """
        left_out: list[Place] = []
        baseline = data.get("baseline") or next(iter(data["chains"]), "")
        for section, names in self.chosen.items():
            entries = data[section]
            kept = {baseline} if section == "chains" else set()
            for name in names:
                # A chain with a sweep has become several, whose names begin with its name.
                found = [name] if name in entries else [each for each in entries if each.startswith(f"{name} ")]
                if not found:
                    raise _unknown(section, name, list(entries))
                kept.update(found)
            left_out += [(section, name) for name in entries if name not in kept]
            data[section] = {name: entry for name, entry in entries.items() if name in kept}
        if self.chosen and isinstance(data.get("hypotheses"), list):
            data["hypotheses"] = [entry for entry in data["hypotheses"] if _is_about(entry, data)]
        for name, entry in data["tasks"].items():
            if isinstance(entry, Mapping):
                data["tasks"][name] = {**entry, **self.settings}
        if self.seeds:
            data["seeds"] = list(self.seeds)
        if self.rounds is not None:
            cost = data.get("cost")
            data["cost"] = {**(cost if isinstance(cost, Mapping) else {}), "rounds": self.rounds}
        return left_out


def _is_about(hypothesis: Any, data: Mapping[str, Any]) -> bool:
    """Return whether a hypothesis is about chains, a task and a model that are left in the data of a run."""
    if not isinstance(hypothesis, Mapping):
        return True  # an invalid entry is reported later
    strategies = {entry.get("strategy") for entry in data["chains"].values() if isinstance(entry, Mapping)}
    known = {"chain": {*data["chains"], *strategies}, "task": data["tasks"], "model": data["models"]}
    known["against"] = known["chain"]
    return all(hypothesis[key] in names for key, names in known.items() if hypothesis.get(key))


def _unknown(section: str, name: str, known: list[str]) -> ParameterError:
    """Return the error for a name that no entry of a section has."""
    kind, close = section[:-1], closest(name, known)
    rule = f"the name of a {kind} of the run file ({', '.join(known)})"
    way_out = f"did you mean {close!r}?" if close else f"add the {kind} to the file, or leave the file out"
    return ParameterError("bench", f"--{kind}", rule, name, way_out)
