"""Find plugins: the built-in ones and those that installed distributions declare, each on its own."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from logitkit.errors import NameTakenError, PluginError
from logitkit.registry import hookspecs
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

HOOKS = ("logitkit_specs", "logitkit_tasks")
Offer = TypeVar("Offer", Spec, TaskSpec)
BUILT_IN = ("byte_level", "cascade", "contrast", "ensemble", "ngram", "tasks", "warpers")


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
            raise PluginError(plugin.fault) from plugin.error
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
    """Load one plugin and ask it what it offers; whatever it raises is kept with it."""
    key = f"{name} ({origin})"
    try:
        module = load()
        _has_a_hook(module)
        manager.register(module, name=key)
        specs = _offered(manager.hook.logitkit_specs, module, Spec, origin)
        tasks = _offered(manager.hook.logitkit_tasks, module, TaskSpec, origin)
        plugin = Plugin(name=name, origin=origin, specs=tuple(specs), tasks=tuple(tasks))
        _are_different(plugin.offers)
    except (Exception, SystemExit) as error:
        manager.unregister(name=key) if manager.has_plugin(key) else None
        return Plugin(name=name, origin=origin, error=_as_exception(error))
    return plugin


def _as_exception(error: BaseException) -> Exception:
    """The error as it was; one that would end the program becomes ours."""
    if isinstance(error, Exception):
        return error
    kept = PluginError(f"it must not end the program when it is loaded, got SystemExit: {error}; remove the exit")
    kept.__cause__ = error
    return kept


def _has_a_hook(module: Any) -> None:
    """Make sure that a plugin implements hooks that there are, under their names and without arguments.

    Raises:
        PluginError: says what the author must change.
    """
    functions = dict(inspect.getmembers(module, inspect.isroutine))
    marked = {key: value for key, value in functions.items() if hasattr(value, f"{hookspecs.PROJECT}_impl")}
    for key, function in marked.items():
        if key not in HOOKS:
            raise PluginError(f"the hook must be named {' or '.join(HOOKS)}, got {key!r}; rename it")
        if inspect.signature(function).parameters:
            raise PluginError(f"{key}() must take no arguments, got {inspect.signature(function)}; remove them")
    if not marked:
        near = [match for hook in HOOKS for match in get_close_matches(hook, functions, n=1)]
        found = f", got {near[0]}() without the mark" if near else ""
        raise PluginError(f"it has no logitkit hook{found}; decorate {HOOKS[0]}() with @logitkit.hookimpl")


def _offered(caller: Any, module: Any, kind: type[Offer], origin: str) -> list[Offer]:
    """What one hook of a plugin gives, having made sure that it is of this kind."""
    found: list[Offer] = []
    for implementation in caller.get_hookimpls():
        if implementation.plugin is not module:
            continue
        given, must, way_out = (
            implementation.function(),
            f"{caller.name}() must return",
            f"[logitkit.{kind.__name__}(...)]",
        )
        if isinstance(given, kind) or not isinstance(given, Iterable):
            raise PluginError(f"{must} a list of {kind.__name__}s, got {given!r:.80}; return {way_out}")
        for one in given:
            if not isinstance(one, kind):
                raise PluginError(f"{must} {kind.__name__}s, got {type(one).__name__}; return {way_out}")
            found.append(one.offered_by(origin))
    return found


def _are_different(names: Sequence[str]) -> None:
    """Refuse a plugin that offers a name twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NameTakenError(f"every name must be offered once, got {twice[0]!r} twice; rename one")


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
            claims = tuple(spec.name for spec in plugin.specs)
            plugin, claimed = Plugin(name=plugin.name, origin=plugin.origin, error=error, claims=claims), []
        owner |= dict.fromkeys(claimed, f"{plugin.name} ({plugin.origin})")
        kept.append(plugin)
    return kept
