"""Read a run from YAML or from flags; every mistake is found at once, each with its line."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from logitkit.bench.config import preflight
from logitkit.bench.config.run import ChainEntry, CostEntry, ModelEntry, ResourceEntry, Run, TaskEntry
from logitkit.errors import RunError
from logitkit.params import rule_of

Place = tuple[str, ...]
Mistake = tuple[Place, str]
SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelEntry,
    "chains": ChainEntry,
    "tasks": TaskEntry,
    "resources": ResourceEntry,
}


def read(path: Path, *, allow_code_execution: bool = False) -> Run:
    """Read a run file.

    Beside the fields of `Run` it may hold ``defaults`` (settings of all tasks), lists of names in place of mappings,
    texts in place of chains, and sweeps: ``chain: cfg($scale)`` with ``sweep: {scale: [1.2, 1.5]}``.

    Raises:
        RunError: with every mistake and its line; no model has been loaded.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(str(path), [str(error)]) from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RunError(str(path), [f"{line}not YAML: {error.problem}"]) from error
    lines: dict[Place, int] = {}
    mistakes: list[Mistake] = []
    if node is None or not isinstance(node, yaml.MappingNode):
        raise RunError(str(path), ["must be a mapping with models, chains and tasks"])
    _walk(node, (), lines, mistakes)
    data = yaml.safe_load(text)
    run, found = _run_of(data, folder=str(path.parent), allow=allow_code_execution)
    mistakes += found
    if run is None or mistakes:
        raise RunError(str(path), _told(mistakes, lines))
    return run


def from_data(data: dict[str, Any], *, folder: str = ".", allow_code_execution: bool = False) -> Run:
    """Make a run of plain data in the form of a run file, as flags give it.

    Raises:
        RunError: with every mistake.
    """
    run, mistakes = _run_of(data, folder=folder, allow=allow_code_execution)
    if run is None or mistakes:
        raise RunError("run", _told(mistakes, {}))
    return run


def _run_of(data: dict[str, Any], *, folder: str, allow: bool) -> tuple[Run | None, list[Mistake]]:
    """The run, if it can be made, and everything that is wrong with it."""
    mistakes: list[Mistake] = []
    known = [*Run.model_fields, "defaults"]
    hidden = ("folder", "allow_code_execution")
    for key in data:
        if key not in known or key in hidden:
            mistakes.append(((str(key),), _unknown(str(key), [name for name in known if name not in hidden])))
    whole = {key: value for key, value in data.items() if key in known and key not in (*hidden, "defaults")}
    defaults = _defaults(data.get("defaults"), mistakes)
    for section in SECTIONS:
        if whole.get(section) is not None or section != "resources":
            whole[section] = dict(_entries(section, whole.get(section), defaults, mistakes))
        else:
            whole.pop(section, None)
    if isinstance(whole.get("seeds"), int):
        whole["seeds"] = [whole["seeds"]]
    if "cost" in whole and whole["cost"] is not None:
        mistakes += _invalid(CostEntry, whole["cost"], ("cost",))
    for section, kind in SECTIONS.items():
        for name, entry in whole.get(section, {}).items():
            mistakes += _invalid(kind, entry, (section, name))
    wrong = {place[:2] for place, _ in mistakes}
    for section in SECTIONS:  # what is sound is looked at further, so that all mistakes are found at once
        kept = {name: it for name, it in whole.get(section, {}).items() if (section, name) not in wrong}
        if section in whole:
            whole[section] = kept
    if ("cost",) in {place[:1] for place, _ in mistakes}:
        whole.pop("cost")
    try:
        run = Run.model_validate({**whole, "folder": folder, "allow_code_execution": allow})
    except ValidationError as error:
        return None, mistakes + [(_place(one["loc"]), _rule(Run, one)) for one in error.errors()]
    return run, mistakes + preflight.mistakes(run, left_out=[place for place, _ in mistakes])


def _defaults(given: Any, mistakes: list[Mistake]) -> dict[str, Any]:
    """The settings of all tasks; one that is wrong is told once and left out."""
    if given is None or not isinstance(given, Mapping):
        if given is not None:
            mistakes.append((("defaults",), f"must be a mapping, got {given!r}"))
        return {}
    found = _invalid(TaskEntry, {"task": "any", **given}, ("defaults",))
    mistakes += found
    wrong = {place[1] for place, _ in found}
    return {name: value for name, value in given.items() if name not in wrong}


def _entries(
    section: str, given: Any, defaults: Mapping[str, Any], mistakes: list[Mistake]
) -> Iterator[tuple[str, Any]]:
    """The entries of a section by name, short forms written out."""
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        given = {(one or "plain"): one if section != "tasks" else None for one in given}
    if not isinstance(given, Mapping) or not given:
        mistakes.append(((section,), f"{section} must be a mapping of names, or a list of them, got {given!r}"))
        return
    for name, entry in given.items():
        if section == "models" and isinstance(entry, str):
            entry = {"name": entry}
        elif section == "chains" and (isinstance(entry, (str, list)) or entry is None):
            entry = {"chain": entry or ""}
        elif section == "tasks":
            entry = {"task": name, **defaults, **entry} if isinstance(entry or {}, Mapping) and entry else entry
            entry = {"task": name, **defaults} if entry is None else entry
        if section == "chains" and isinstance(entry, Mapping) and "sweep" in entry:
            yield from _swept(str(name), dict(entry), mistakes)
        else:
            yield str(name), entry


def _swept(name: str, entry: dict[str, Any], mistakes: list[Mistake]) -> Iterator[tuple[str, Any]]:
    """One chain for every combination of the values of a sweep."""
    sweep, place = entry.pop("sweep"), ("chains", name, "sweep")
    if not isinstance(sweep, Mapping) or not all(isinstance(values, list) and values for values in sweep.values()):
        mistakes.append((place, f"sweep must be lists of values by name, got {sweep!r}"))
        return
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        try:
            text = string.Template(str(entry.get("chain", ""))).substitute(chosen)
        except (KeyError, ValueError) as error:
            mistakes.append((place, f"every $name of the chain must be in the sweep, got {error}"))
            return
        yield f"{name} {', '.join(f'{key}={value}' for key, value in chosen.items())}", {**entry, "chain": text}


def _invalid(kind: type[BaseModel], entry: Any, place: Place) -> list[Mistake]:
    """What is wrong with one entry."""
    if not isinstance(entry, Mapping):
        return [(place, f"must be a mapping, got {entry!r}")]
    try:
        kind.model_validate(dict(entry))
    except ValidationError as error:
        found = [((*place, str(one["loc"][0])), _rule(kind, one)) for one in error.errors()]
        return list(dict.fromkeys(found))
    return []


def _rule(kind: type[BaseModel], error: Any) -> str:
    """One error of pydantic in our words."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return _unknown(name, list(kind.model_fields))
    field = kind.model_fields[name]
    if error["type"] == "missing":
        return f"{name} must be given ({field.description})"
    return f"{name} must be {rule_of(field.annotation, tuple(field.metadata))}, got {error['input']!r}"


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"no setting named {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _place(loc: Any) -> Place:
    return tuple(str(part) for part in loc)


def _walk(node: Any, place: Place, lines: dict[Place, int], mistakes: list[Mistake]) -> None:
    """Note the line of every key, and keys that are given twice, of which YAML would silently drop one."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, str(key.value))
            if here in lines:
                mistakes.append((here, f"given twice, in line {lines[here]} too"))
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, mistakes)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            if isinstance(value, yaml.ScalarNode):
                lines.setdefault((*place, str(value.value or "plain")), value.start_mark.line + 1)


def _told(mistakes: list[Mistake], lines: Mapping[Place, int]) -> list[str]:
    """Mistakes in the order of their lines."""
    placed = [(_line(place, lines), place, what) for place, what in mistakes]
    placed.sort(key=lambda one: one[0])
    return [
        (f"line {line}: " if line else "") + (f"{'.'.join(place)}: " if place else "") + what
        for line, place, what in dict.fromkeys(placed)
    ]


def _line(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of a place: its own, or that of the nearest part around it."""
    if place in lines:
        return lines[place]
    if place[:1] == ("chains",) and len(place) > 1:  # a swept name begins with the name in the file
        starts = [key for key in lines if len(key) == 2 and key[0] == "chains" and place[1].startswith(f"{key[1]} ")]
        if starts:
            return lines[max(starts, key=lambda key: len(key[1]))]
    return _line(place[:-1], lines) if place else 0
