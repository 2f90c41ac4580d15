"""The registry: names of processors and tasks with their declarations. Nothing is added after discovery."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from logitkit.errors import LogitkitError, PluginError, UnknownNameError
from logitkit.registry.foreign_code import printable, text_of, words
from logitkit.registry.spec import Kind, Spec
from logitkit.registry.task_spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One plugin that discovery examined.

    Attributes:
        name: of its entry point.
        origin: its distribution and version; ``logitkit`` for built-in plugins.
        specs, tasks: the processors and tasks that the plugin offers; empty if the plugin is broken.
        error: the exception that makes it broken, or None.
        claims: names that a broken plugin would offer.

    >>> Plugin(name="mine", origin="mine 1.0", error=ImportError("no module named numba")).fault
    "plugin 'mine' (from mine 1.0) is broken: ImportError: no module named numba; correct it, upgrade it, or pip \
uninstall it"
    """

    name: str
    origin: str
    specs: tuple[Spec, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    error: Exception | None = None
    claims: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """One line with the error and what to do; empty for a plugin that works."""
        if self.error is None:
            return ""
        what = text_of(self.error)
        if not isinstance(self.error, LogitkitError):
            what = f"{words(self.error)}; correct it, upgrade it, or pip uninstall it"
        return f"plugin {self.name!r} (from {self.origin}) is broken: {what}"

    @property
    def offers(self) -> list[str]:
        """Names of the processors, and names of the tasks with ``task`` before them."""
        return [spec.name for spec in self.specs] + [f"task {task.name}" for task in self.tasks]

    @property
    def traceback(self) -> str:
        """The error as Python prints it; empty for a plugin that works."""
        return printable("".join(traceback.format_exception(self.error))) if self.error else ""


class Registry:
    """All processors and tasks that can be named.

    Args:
        plugins: working and broken plugins, with no name offered twice.

    Attributes:
        plugins: as given.

    >>> spec = Spec(name="soften", summary="Flatten the distribution.", source="transformers",
    ...             target="transformers:TemperatureLogitsWarper")
    >>> registry = Registry([Plugin(name="mine", origin="mine 1.0", specs=(spec,))])
    >>> registry.names(), registry.describe("soften").summary
    (['soften'], 'Flatten the distribution.')
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._specs = {spec.name: spec for plugin in plugins for spec in plugin.specs}
        self._tasks = {task.name: task for plugin in plugins for task in plugin.tasks}

    def names(self, kind: Kind | None = "processor") -> list[str]:
        """Return the names of all processors, or of another kind, sorted. Imports no torch.

        Args:
            kind: ``processor``, ``search`` or ``selector``; None: every kind.
        """
        return sorted(name for name, spec in self._specs.items() if kind in (None, spec.kind))

    def tasks(self) -> list[str]:
        """Return the names of all tasks, sorted."""
        return sorted(self._tasks)

    def describe(self, name: str) -> Spec:
        """Return the Spec of a processor. Imports no torch.

        Raises:
            UnknownNameError: no plugin offers the name; the error shows the closest known name.
            PluginError: the plugin with this name is broken; its own error is the cause.
        """
        if name in self._specs:
            return self._specs[name]
        broken = [plugin for plugin in self.plugins if plugin.error]
        for plugin in broken:
            if name in (plugin.name, *plugin.claims):
                raise PluginError(plugin.fault) from plugin.error
        hint = f"{len(broken)} plugin(s) are broken, see `logitkit doctor`" if broken else "see `logitkit list`"
        raise UnknownNameError("processor", name, self._specs, hint)

    def describe_task(self, name: str) -> TaskSpec:
        """Return the TaskSpec of a task.

        Raises:
            UnknownNameError: no plugin offers the name; the error shows the closest known name.
        """
        if name not in self._tasks:
            raise UnknownNameError("task", name, self._tasks)
        return self._tasks[name]
