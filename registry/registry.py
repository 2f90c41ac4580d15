"""Names and what they stand for. A value: nothing is added after discovery."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from logitkit.errors import LogitkitError, PluginError, UnknownNameError
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One plugin that was found: its name, where it comes from, what it offers, and why it fails if it does.

    Attributes:
        claims: names that it would offer, were it not broken.
    """

    name: str
    origin: str
    specs: tuple[Spec, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    error: Exception | None = None
    claims: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """What is wrong and what to do about it, in a line; empty when nothing is."""
        if self.error is None:
            return ""
        what = str(self.error)
        if not isinstance(self.error, LogitkitError):
            what = f"{type(self.error).__name__}: {what}; correct it, upgrade it, or pip uninstall it"
        return f"plugin {self.name!r} (from {self.origin}) is broken: {what}"

    @property
    def offers(self) -> list[str]:
        """Names of its processors, and of its tasks with ``task`` before them."""
        return [spec.name for spec in self.specs] + [f"task {task.name}" for task in self.tasks]

    @property
    def traceback(self) -> str:
        """The error as Python prints it."""
        return "".join(traceback.format_exception(self.error)) if self.error else ""


class Registry:
    """Every processor that can be named.

    Attributes:
        plugins: what was found, working and broken.
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._specs = {spec.name: spec for plugin in plugins for spec in plugin.specs}
        self._tasks = {task.name: task for plugin in plugins for task in plugin.tasks}

    def names(self) -> list[str]:
        """Names of all processors, sorted. Imports no torch."""
        return sorted(self._specs)

    def tasks(self) -> list[str]:
        """Names of all tasks, sorted."""
        return sorted(self._tasks)

    def describe_task(self, name: str) -> TaskSpec:
        """Return the TaskSpec of a name.

        Raises:
            UnknownNameError: nobody offers it; says the closest name.
        """
        if name not in self._tasks:
            raise UnknownNameError("task", name, self._tasks)
        return self._tasks[name]

    def describe(self, name: str) -> Spec:
        """Return the Spec of a name. Imports no torch.

        Raises:
            UnknownNameError: nobody offers it; says the closest name.
            PluginError: the plugin of that name is broken; its own error is the cause.
        """
        if name in self._specs:
            return self._specs[name]
        broken = [plugin for plugin in self.plugins if plugin.error]
        for plugin in broken:
            if name in (plugin.name, *plugin.claims):
                raise PluginError(plugin.fault) from plugin.error
        hint = f"{len(broken)} plugin(s) are broken, see `logitkit doctor`" if broken else "see `logitkit list`"
        raise UnknownNameError("processor", name, self._specs, hint)
