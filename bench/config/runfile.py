"""Read a run from YAML or from plain data. All mistakes are found at once, each with its line."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from logitkit.bench.config import preflight
from logitkit.bench.config.line_numbers import collect_lines, messages
from logitkit.bench.config.overrides import Overrides
from logitkit.bench.config.preflight import Mistake, Place
from logitkit.bench.config.run import (
    ChainEntry,
    CostEntry,
    HypothesisEntry,
    ModelEntry,
    ResourceEntry,
    Run,
    TaskEntry,
    TunedEntry,
)
from logitkit.errors import LogitkitError, RunError, closest
from logitkit.files import read_text
from logitkit.params import rule_of, suggestion
from logitkit.registry.chain import Chain
from logitkit.registry.yaml_files import compose, construct

SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelEntry,
    "chains": ChainEntry,
    "tasks": TaskEntry,
    "resources": ResourceEntry,
}
PARTS: dict[str, type[BaseModel]] = {"cost": CostEntry, "tuned": TunedEntry}
SWEPT = 10_000  # chains of one sweep
NOT_IN_FILES = ("folder", "allow_code_execution")  # fields of a Run that a run file may not set


def read(path: Path, *, allow_code_execution: bool = False, overrides: Overrides | None = None) -> Run:
    r"""Read a run file.

    Beside the fields of `Run`, a run file may hold ``defaults`` (settings of all tasks), lists of names in place of
    mappings, texts in place of chains, and sweeps: ``chain: cfg($scale)`` with ``sweep: {scale: [1.2, 1.5]}``.

    Args:
        path: the YAML file; relative paths in it start at its folder.
        allow_code_execution: accept tasks that execute programs written by a model.
        overrides: settings in place of those of the file.

    Raises:
        RunError: with every mistake and its line, before any model is loaded.
        ParameterError: the overrides name an entry that the file does not have.

    Examples:
        >>> import tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> file = folder / 'run.yaml'
        >>> text = 'models: [tiny]\nchains: [\"\", cfg(1.5)]\ntasks: {lambada: {data: texts.jsonl}}\n'
        >>> _ = file.write_text(text)
        >>> list(read(file).chains)
        ['plain', 'cfg(1.5)']
    """
    try:
        text = read_text(path)
        node = compose(text)
        data = construct(node)
    except (OSError, ValueError, yaml.reader.ReaderError) as error:
        raise RunError(str(path), [str(error)]) from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RunError(str(path), [f"{line}not YAML: {error.problem}"]) from error
    lines: dict[Place, int] = {}
    mistakes: list[Mistake] = []
    if node is None or not isinstance(node, yaml.MappingNode):
        raise RunError(str(path), ["must be a mapping with models, chains and tasks"])
    collect_lines(node, (), lines, mistakes)
    run, further = _build(data, folder=str(path.parent), allow=allow_code_execution, overrides=overrides)
    mistakes += further
    if run is None or mistakes:
        raise RunError(str(path), messages(mistakes, lines))
    return run


def from_data(data: dict[str, Any], *, folder: str = ".", allow_code_execution: bool = False) -> Run:
    """Make a run of plain data in the form of a run file; the command line passes its flags this way.

    Args:
        data: what a run file holds.
        folder: where relative paths start.
        allow_code_execution: accept tasks that execute programs written by a model.

    Raises:
        RunError: with every mistake.

    Examples:
        >>> import tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> data = {'models': ['tiny'], 'chains': [''], 'tasks': {'lambada': {'data': 'texts.jsonl'}}}
        >>> from_data(data, folder=str(folder)).compared_with
        'plain'
    """
    run, mistakes = _build(data, folder=folder, allow=allow_code_execution)
    if run is None or mistakes:
        raise RunError("run", messages(mistakes, {}))
    return run


def _build(
    data: dict[str, Any], *, folder: str, allow: bool, overrides: Overrides | None = None
) -> tuple[Run | None, list[Mistake]]:
    """Return the run of the valid entries, None if there is none, and all mistakes."""
    mistakes: list[Mistake] = []
    settings = _expanded(data, folder, mistakes)
    left_out = overrides.apply(settings) if overrides else []
    for part, kind in PARTS.items():
        if settings.get(part) is not None:
            mistakes += _invalid(kind, settings[part], (part,))
    for number, entry in enumerate(settings.get("hypotheses", []), 1):
        mistakes += _invalid(HypothesisEntry, entry, ("hypotheses", str(number)))
    for section, kind in SECTIONS.items():
        for name, entry in settings.get(section, {}).items():
            mistakes += _invalid(kind, entry, (section, name))
    # Invalid entries are left out, so that the checks of preflight find further mistakes in the valid ones.
    wrong = {place[:2] for place, _ in mistakes}
    for section in SECTIONS.keys() & settings.keys():
        settings[section] = {name: entry for name, entry in settings[section].items() if (section, name) not in wrong}
    for part in {*PARTS, "hypotheses"} & {place[0] for place, _ in mistakes}:
        settings.pop(part, None)
    try:
        run = Run.model_validate({**settings, "folder": folder, "allow_code_execution": allow})
    except ValidationError as error:
        return None, mistakes + [(_place(detail["loc"]), _message(Run, detail)) for detail in error.errors()]
    return run, mistakes + preflight.mistakes(run, left_out=[*(place for place, _ in mistakes), *left_out])


def _expanded(data: dict[str, Any], folder: str, mistakes: list[Mistake]) -> dict[str, Any]:
    """Return the known settings of a run file, with short forms, defaults and sweeps written out."""
    allowed = [name for name in [*Run.model_fields, "defaults"] if name not in NOT_IN_FILES]
    mistakes += [((str(key),), _unknown(str(key), allowed)) for key in data if key not in allowed]
    settings = {key: value for key, value in data.items() if key in allowed and key != "defaults"}
    defaults = _defaults(data.get("defaults"), mistakes)
    for section in SECTIONS:
        if settings.get(section) is not None or section != "resources":
            settings[section] = dict(_entries(section, settings.get(section), defaults, mistakes))
        else:
            settings.pop(section, None)
    for name, entry in settings.get("chains", {}).items():
        settings["chains"][name] = _with_chain_of_file(name, entry, folder, mistakes)
    if not isinstance(hypotheses := settings.pop("hypotheses", None) or [], list):
        mistakes.append((("hypotheses",), f"must be a list of mappings, got {hypotheses!r}"))
    elif hypotheses:
        settings["hypotheses"] = hypotheses
    if isinstance(settings.get("seeds"), int):
        settings["seeds"] = [settings["seeds"]]
    return settings


def _defaults(defaults: Any, mistakes: list[Mistake]) -> dict[str, Any]:
    """Return the valid settings of ``defaults``; a mistake in them is reported once, not once per task."""
    if defaults is None or not isinstance(defaults, Mapping):
        if defaults is not None:
            mistakes.append((("defaults",), f"must be a mapping, got {defaults!r}"))
        return {}
    further = _invalid(TaskEntry, {"task": "any", **defaults}, ("defaults",))
    mistakes += further
    wrong = {place[1] for place, _ in further}
    return {name: value for name, value in defaults.items() if name not in wrong}


def _entries(
    section: str, content: Any, defaults: Mapping[str, Any], mistakes: list[Mistake]
) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a section by name, with short forms written out."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        content = {(name or "plain"): name if section != "tasks" else None for name in content}
    if not isinstance(content, Mapping) or not content:
        mistakes.append(((section,), f"{section} must be a mapping of names, or a list of names, got {content!r}"))
        return
    for name, entry in content.items():
        if section == "models" and isinstance(entry, str):
            entry = {"name": entry}
        elif section == "chains" and (isinstance(entry, (str, list)) or entry is None):
            entry = {"chain": entry or ""}
        elif section == "tasks" and (entry is None or (isinstance(entry, Mapping) and entry)):
            entry = {"task": name, **defaults, **(entry or {})}
        if section == "chains" and isinstance(entry, Mapping) and "sweep" in entry:
            yield from _swept(str(name), dict(entry), mistakes)
        else:
            yield str(name), entry


def _with_chain_of_file(name: str, entry: Any, folder: str, mistakes: list[Mistake]) -> Any:
    """Return the entry of a chain with the steps of the file that it names, relative to the folder of the run file."""
    text = entry.get("chain") if isinstance(entry, Mapping) else None
    if not isinstance(text, str) or not text.endswith((".yaml", ".yml", ".json")):
        return entry
    try:
        return {**entry, "chain": Chain.from_file(Path(folder) / text).as_data()}
    except LogitkitError as error:
        mistakes.append((("chains", name), str(error)))
        return {**entry, "chain": ""}


def _swept(name: str, entry: dict[str, Any], mistakes: list[Mistake]) -> Iterator[tuple[str, Any]]:
    """Yield one chain for every combination of the values of a sweep."""
    sweep, place = entry.pop("sweep"), ("chains", name, "sweep")
    if not isinstance(sweep, Mapping) or not all(isinstance(values, list) and values for values in sweep.values()):
        mistakes.append((place, f"sweep must be lists of values by name, got {sweep!r}"))
        return
    if (count := math.prod(map(len, sweep.values()))) > SWEPT:
        mistakes.append((place, f"a sweep must have at most {SWEPT} combinations, got {count}"))
        return
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        try:
            text = string.Template(str(entry.get("chain", ""))).substitute(chosen)
        except (KeyError, ValueError) as error:
            mistakes.append((place, f"every $name of the chain must be in the sweep, got {error}"))
            return
        setting = ", ".join(f"{key}={value}" for key, value in chosen.items())
        yield f"{name} {setting}", {"strategy": name, **entry, "chain": text}


def _invalid(kind: type[BaseModel], entry: Any, place: Place) -> list[Mistake]:
    """Return the mistakes of one entry."""
    if not isinstance(entry, Mapping):
        return [(place, f"must be a mapping, got {entry!r}")]
    try:
        kind.model_validate(dict(entry))
    except ValidationError as error:
        further = [((*place, str(detail["loc"][0])), _message(kind, detail)) for detail in error.errors()]
        return list(dict.fromkeys(further))
    return []


def _message(kind: type[BaseModel], error: Any) -> str:
    """Word one error of pydantic as the other errors of logitkit are worded."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return _unknown(name, list(kind.model_fields))
    field = kind.model_fields[name]
    if error["type"] == "missing":
        return f"{name} must be given ({field.description})"
    close = suggestion(field.annotation, error["input"])
    rule = rule_of(field.annotation, tuple(field.metadata))
    return f"{name} must be {rule}, got {error['input']!r}" + (f"; {close}" if close else "")


def _unknown(name: str, known: list[str]) -> str:
    """Return the message for an unknown setting, with the closest known one."""
    close = closest(name, known)
    return f"no setting named {name!r}; " + (f"did you mean {close!r}?" if close else f"known: {', '.join(known)}")


def _place(location: Any) -> Place:
    """Return the location of an error of pydantic as a place."""
    return tuple(str(part) for part in location)
