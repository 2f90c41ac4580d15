"""The hooks a plugin may implement."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

PROJECT = "logitkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def logitkit_specs() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the processors this plugin offers.

    Called once, the first time a name is looked up. Keep it cheap: no torch, no network, no model; a
    Spec's target is imported only when used. A name already taken is an error that names both plugins;
    nothing is renamed or overridden silently. An exception here concerns this plugin alone: it is kept,
    shown by ``logitkit doctor``, and the other plugins work.
    """


@hookspec
def logitkit_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Return the tasks this plugin offers to ``logitkit bench``.

    Called once, with `logitkit_specs`, and under the same rules. A task's name may be that of a processor.
    """
