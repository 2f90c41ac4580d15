"""The declaration of a benchmark task by its plugin, as data. The task class is imported only when it is used."""

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
from logitkit.registry.declaration_checks import check_flags, check_name, check_texts
from logitkit.registry.foreign_code import contained, words

TaskMode = Literal["generate", "loglikelihood"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskSpec:
    """One task by name. ``name``, ``summary``, ``source`` and ``target`` are required.

    Attributes:
        name: snake_case, unique among the tasks of installed plugins.
        summary: what the task asks and measures, in one sentence.
        source: where the data are from.
        target: ``module:Class`` of a `logitkit.bench.Task`, imported on first use. A run file may set the annotated
            parameters of its constructor.
        mode: ``generate``: the chain writes answers. ``loglikelihood``: the chain scores given texts. A chain with a
            processor that refuses the mode is refused before any model is loaded.
        data: name of the data file in the folder ``LOGITKIT_DATA``; empty if the task needs none.
        hub: the same data on the Hugging Face hub, ``owner/name``, ``owner/name:configuration`` or
            ``owner/name:configuration:split``; the split is ``test`` where it is left out.
        encoding: of the data file.
        executes: the task executes code that the model wrote, so it needs ``--allow-code-execution``.
        plugin: distribution and version that offer the task; filled in by discovery.

    Raises:
        ParameterError: a field that breaks its rule.

    >>> TaskSpec(name="riddles", summary="Answer riddles.", source="made up", target="riddles.task:Riddles").mode
    'generate'
    """

    name: str
    summary: str
    source: str
    target: str
    mode: TaskMode = "generate"
    data: str = ""
    hub: str = ""
    encoding: str = "utf-8"
    executes: bool = False
    plugin: str = ""

    def __post_init__(self) -> None:
        check_name("TaskSpec", self.name)
        owner = f"TaskSpec {self.name}"
        check_texts(owner, self, ("summary", "source", "target", "data", "hub", "encoding", "plugin"))
        check_flags(owner, self, ("executes",))
        if not re.fullmatch(r"[\w.]+:\w+", self.target):
            raise ParameterError(owner, "target", "'module:Class'", self.target)
        if self.mode not in get_args(TaskMode):
            raise ParameterError(owner, "mode", "'generate' or 'loglikelihood'", self.mode)
        for part in ("summary", "source"):
            if not getattr(self, part):
                raise ParameterError(owner, part, "given", "")

    def offered_by(self, plugin: str) -> TaskSpec:
        """Return a copy that names the distribution offering it."""
        return dataclasses.replace(self, plugin=plugin)

    @cached_property
    def factory(self) -> Any:
        """The target class, imported on first use.

        Raises:
            PluginError: the target cannot be imported or is no task class.
        """
        module, _, attribute = self.target.partition(":")
        owner = f"task {self.name} (from {self.plugin or 'an unnamed plugin'}): target {self.target!r}"
        try:
            with contained():
                loaded = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                f"{owner} must be importable, got {words(error)}; correct the TaskSpec's target"
            ) from error
        if not isinstance(loaded, type) or not all(hasattr(loaded, name) for name in ("request", "judge", "metrics")):
            raise PluginError(f"{owner} must be a class of tasks; subclass logitkit.bench.Task")
        return loaded

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the parameters, read from the constructor of the target."""
        fields = {name: field for name, field in declared(self.factory.__init__).items() if name != "rows"}
        return model_of(self.name, fields)

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters, validated and without defaults.

        Raises:
            ParameterError, UnknownNameError: for the first wrong parameter.
        """
        return validate(self.name, self.model, parameters)

    def build(self, rows: Any, parameters: Mapping[str, Any]) -> Any:
        """Return the task for these data rows.

        Raises:
            PluginError: the target does not accept its declared parameters.
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
        """Return the spec as plain data."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
