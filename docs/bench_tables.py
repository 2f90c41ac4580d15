"""Tables of the pages on benchmarking and experiments: keys of run files, options of commands, tasks and metrics.

``python docs/bench_tables.py`` writes them into both pages, between marks such as ``<!-- keys: Run -->`` and
``<!-- end -->``, so that a clone shows them. A test compares the pages with the code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from logitkit.bench.config import run
from logitkit.cli import bench_choose, bench_power, bench_report, bench_run, bench_speed
from logitkit.params import rule_of
from logitkit.registry import discover
from logitkit.registry.pages.man_page import written

PAGES = [Path(__file__).parent / f"{name}.md" for name in ("benchmarking", "experiments")]
END = "<!-- end -->"
PART = re.compile(r"(<!-- (keys|flags|tasks)(?:: (\w+))? -->).*?<!-- end -->", re.DOTALL)
COMMANDS = {
    "run": bench_run.run,
    "report": bench_report.report,
    "speed": bench_speed.speed,
    "power": bench_power.power,
    "choose": bench_choose.choose,
}
NOT_IN_FILES = ("folder", "allow_code_execution")  # fields of a Run that a run file may not set
RULES = {"hypotheses": "a list of mappings, see below"} | dict.fromkeys(("cost", "tuned"), "a mapping, see below")
RULES |= dict.fromkeys(("models", "chains", "tasks", "resources", "parameters"), "a mapping")
DEFAULTS = ("defaults", "a mapping of keys of a task", "", "settings of every task, unless the task sets its own")
SWEEP = ("sweep", "a mapping of lists", "", "values for each `$name` of the chain; one chain for each combination")


def filled(page: str) -> str:
    """Return a page with the tables of the code between its marks."""
    return PART.sub(lambda part: f"{part[1]}\n\n{_table_of(part[2], part[3])}\n\n{END}", page)


def _table_of(kind: str, name: str) -> str:
    """Return the table of a mark."""
    if kind == "tasks":
        return tasks()
    return keys(getattr(run, name)) if kind == "keys" else flags(COMMANDS[name])


def keys(entry: type[BaseModel]) -> str:
    """Return the keys of one part of a run file."""
    rows = []
    for name, field in entry.model_fields.items():
        if entry is run.Run and name in NOT_IN_FILES:
            continue
        of_task = (entry, name) == (run.TaskEntry, "task")  # files may leave it out, the constructor may not
        default = "" if of_task else "required" if field.is_required() else written(field.default)
        rule = RULES.get(name) if entry is run.Run or name == "parameters" else None
        rule = rule or rule_of(field.annotation, tuple(field.metadata))
        rows.append((name, rule, default, field.description or ""))
    rows += [DEFAULTS] if entry is run.Run else [SWEEP] if entry is run.ChainEntry else []
    return _table(("key", "rule", "default", "meaning"), [(f"`{name}`", *rest) for name, *rest in rows])


def flags(command: Any) -> str:
    """Return the arguments and options of a command."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    rows = []
    for parameter in typer.main.get_command(app).params:
        named = parameter.param_type_name == "option"
        name = ", ".join(f"`{text}`" for text in parameter.opts) if named else f"`{parameter.opts[0].upper()}`"
        rows.append((name, getattr(parameter, "help", None) or ""))
    return _table(("option", "meaning"), rows)


def tasks() -> str:
    """Return the built-in tasks with their metrics, modes and data."""
    registry = discover(third_party="none")
    rows = []
    for name in registry.tasks():
        spec = registry.describe_task(name)
        metrics = ", ".join(f"`{metric.name}`" for metric in spec.factory.metrics)
        parameters = ", ".join(f"`{parameter}`" for parameter in spec.model.model_fields)
        rows.append((f"`{name}`", spec.summary, spec.mode, metrics, parameters, f"`{spec.data}`"))
    return _table(("task", "what it measures", "mode", "metrics, the main one first", "parameters", "data"), rows)


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    cells = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in (heading, ("---",) * len(heading), *rows)]
    return "\n".join(f"| {row} |" for row in cells)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
