"""Find plugins: the built-in ones and those that installed distributions declare, each on its own."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from logitkit.errors import NameTakenError, PluginError
from logitkit.registry import hookspecs
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

BUILT_IN = ("bytes", "cascades", "contrast", "ensemble", "style", "tasks", "warpers")


def discover(*, third_party: str = "all", strict: bool = False) -> Registry:
    """Look at every plugin and return the registry of what works, with the failures of what does not.

    Args:
        third_party: ``all``, ``none``, or a comma list of entry-point names to load.
        strict: raise the first failure at once.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    found = [_examine(manager, name, "logitkit", functools.partial(_built_in, name)) for name in BUILT_IN]
    for entry in _chosen(entry_points(group=hookspecs.PROJECT), third_party):
        found.append(_examine(manager, entry.name, _origin(entry), entry.load))
    found = _without_collisions(found)
    for plugin in found:
        if strict and plugin.error:
            raise PluginError(
                f"plugin {plugin.name!r} (from {plugin.origin}) is broken: {plugin.error}"
            ) from plugin.error
    return Registry(found)


@functools.cache
def default_registry() -> Registry:
    """The registry of this process; ``LOGITKIT_PLUGINS`` and ``LOGITKIT_STRICT`` are read once, here."""
    return discover(
        third_party=os.environ.get("LOGITKIT_PLUGINS", "all"),
        strict=os.environ.get("LOGITKIT_STRICT", "") not in ("", "0"),
    )


def _built_in(name: str) -> Any:
    return importlib.import_module(f"logitkit.plugins.{name}")


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _chosen(entries: Iterable[EntryPoint], third_party: str) -> list[EntryPoint]:
    """The entry points to load, in a fixed order.

    Raises:
        PluginError: a name in the list that no installed distribution declares.
    """
    every = sorted(entries, key=lambda entry: (entry.name, entry.value))
    if third_party in ("all", ""):
        return every
    wanted = [] if third_party == "none" else [name.strip() for name in third_party.split(",")]
    missing = sorted(set(wanted) - {entry.name for entry in every})
    if missing:
        raise PluginError(
            f"LOGITKIT_PLUGINS: every name must be an installed plugin, got {', '.join(missing)}; "
            f"installed: {', '.join(entry.name for entry in every) or 'none'}"
        )
    return [entry for entry in every if entry.name in wanted]


def _examine(manager: pluggy.PluginManager, name: str, origin: str, load: Callable[[], Any]) -> Plugin:
    """Load one plugin and ask it for its specs; whatever it raises is kept with it."""
    try:
        module = load()
        manager.register(module, name=f"{name} ({origin})")
        manager.check_pending()
        callers = manager.get_hookcallers(module) or []
        if not callers:
            raise PluginError("it has no logitkit hook; decorate logitkit_specs() with @logitkit.hookimpl")
        specs = _offered(manager.hook.logitkit_specs, module, Spec, origin)
        tasks = _offered(manager.hook.logitkit_tasks, module, TaskSpec, origin)
    except Exception as error:
        manager.unregister(name=f"{name} ({origin})") if manager.has_plugin(f"{name} ({origin})") else None
        return Plugin(name=name, origin=origin, error=error)
    return Plugin(name=name, origin=origin, specs=tuple(specs), tasks=tuple(tasks))


def _offered(caller: Any, module: Any, kind: type, origin: str) -> list[Any]:
    """What one plugin's hook gives, having made sure that it is of this kind."""
    offered = []
    for implementation in caller.get_hookimpls():
        if implementation.plugin is module:
            offered += list(implementation.function())
    for spec in offered:
        if not isinstance(spec, kind):
            raise PluginError(
                f"{caller.name}() must return {kind.__name__}s, got {type(spec).__name__}; "
                f"return [logitkit.{kind.__name__}(...)]"
            )
    return [spec.offered_by(origin) for spec in offered]


def _without_collisions(found: list[Plugin]) -> list[Plugin]:
    """Mark a plugin that claims a taken name as broken; the one that was first keeps it."""
    owner: dict[str, str] = {}
    kept: list[Plugin] = []
    for plugin in found:
        claimed = plugin.offers
        taken = [name for name in claimed if name in owner]
        if taken:
            error = NameTakenError(
                f"the name {taken[0]!r} must be offered by one plugin, got {owner[taken[0]]} and "
                f"{plugin.name} ({plugin.origin}); uninstall one, or choose with LOGITKIT_PLUGINS"
            )
            plugin, claimed = Plugin(name=plugin.name, origin=plugin.origin, error=error), []
        owner |= dict.fromkeys(claimed, f"{plugin.name} ({plugin.origin})")
        kept.append(plugin)
    return kept
