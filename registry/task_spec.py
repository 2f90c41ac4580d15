"""What a plugin declares about one task of the benchmark, as data. Its class is imported only when used."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import BaseModel

from logitkit.errors import LogitkitError, ParameterError, PluginError
from logitkit.params import declared, model_of, validate

Mode = Literal["generate", "loglikelihood"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskSpec:
    """One task, by name.

    Attributes:
        name: snake_case, unique among the tasks of installed plugins.
        summary: one sentence.
        source: where the data are from.
        target: ``module:Class`` of a `logitkit.bench.tasks.task.Task`, imported only when used. Its constructor's
            annotated parameters are those that a run file may give.
        mode: whether the task lets the chain write (``generate``) or scores given texts under it
            (``loglikelihood``). A chain whose Spec refuses that mode is refused before any model loads.
        data: name of the data file, looked for in the folder ``LOGITKIT_DATA``; empty: the task brings its own.
        hub: the same data on the Hugging Face hub, ``owner/name``, ``owner/name:configuration`` or
            ``owner/name:configuration:split``; split ``test`` where it is left out.
        encoding: of that data file.
        executes: the task runs what the model wrote, so it needs ``--allow-code-execution``.
        plugin: distribution and version that offered it; filled in by discovery.
    """

    name: str
    summary: str
    source: str
    target: str
    mode: Mode = "generate"
    data: str = ""
    hub: str = ""
    encoding: str = "utf-8"
    executes: bool = False
    plugin: str = ""

    def __post_init__(self) -> None:
        owner = f"TaskSpec {self.name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ParameterError("TaskSpec", "name", "snake_case", self.name)
        if not re.fullmatch(r"[\w.]+:\w+", self.target):
            raise ParameterError(owner, "target", "'module:Class'", self.target)
        if self.mode not in get_args(Mode):
            raise ParameterError(owner, "mode", "'generate' or 'loglikelihood'", self.mode)
        for part in ("summary", "source"):
            if not getattr(self, part):
                raise ParameterError(owner, part, "given", "")

    def offered_by(self, plugin: str) -> TaskSpec:
        """Return the same spec, marked with who offers it."""
        return dataclasses.replace(self, plugin=plugin)

    @cached_property
    def factory(self) -> Any:
        """The target class.

        Raises:
            PluginError: it cannot be imported or is no task.
        """
        module, _, attribute = self.target.partition(":")
        owner = f"task {self.name} (from {self.plugin or 'an unnamed plugin'}): target {self.target!r}"
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                f"{owner} must be importable, got {type(error).__name__}: {error}; correct the TaskSpec's target"
            ) from error
        if not isinstance(found, type) or not all(hasattr(found, name) for name in ("request", "judge", "metrics")):
            raise PluginError(f"{owner} must be a class of tasks; subclass logitkit.bench.tasks.task.Task")
        return found

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the parameters, read off the target's constructor."""
        fields = {name: field for name, field in declared(self.factory.__init__).items() if name != "rows"}
        return model_of(self.name, fields)

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters, validated; the first wrong one is a `ParameterError` under this name."""
        return validate(self.name, self.model, parameters)

    def build(self, rows: Any, parameters: Mapping[str, Any]) -> Any:
        """Make the task of its data rows.

        Raises:
            PluginError: the target refuses its own declared parameters.
        """
        try:
            return self.factory(rows=rows, **parameters)
        except LogitkitError:
            raise
        except (TypeError, ValueError, KeyError) as error:
            raise PluginError(
                f"task {self.name} (from {self.plugin or 'an unnamed plugin'}): {self.target} must accept rows and "
                f"{sorted(parameters)}, got {type(error).__name__}: {error}"
            ) from error

    def as_data(self) -> dict[str, Any]:
        """The spec as plain data."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
