"""The hooks that a plugin may implement, declared for pluggy."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

PROJECT = "logitkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)  # marks a plugin's implementation of a hook


@hookspec
def logitkit_specs() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the processors that this plugin offers.

    Called once, when a name is looked up for the first time. An implementation must be cheap: no torch, no network,
    no model. The target of a Spec is imported on first use of the processor.

    A name that another plugin offers is an error that names both plugins. An exception in this hook affects this
    plugin alone: it is stored, ``logitkit doctor`` shows it, and the other plugins work.
    """


@hookspec
def logitkit_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Return the tasks that this plugin offers to ``logitkit bench``.

    Called once, after `logitkit_specs`, under the same rules. A task may have the name of a processor.
    """
