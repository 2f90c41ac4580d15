"""Discovery of plugins: the built-in ones, and those that installed distributions declare as entry points.

Each plugin is loaded separately. The exception of a broken plugin is stored with it and does not affect the others.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from logitkit.errors import NameTakenError, PluginError
from logitkit.registry import hookspecs
from logitkit.registry.foreign_code import announced, contained
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

HOOKS = ("logitkit_specs", "logitkit_tasks")
PATIENCE = 10.0  # seconds after which a plugin that is still loading is named
MOST_DECLARATIONS = 1000  # of one hook; an endless generator ends here
Examine = Callable[[Sequence[EntryPoint]], Mapping[EntryPoint, Exception]]
Declaration = TypeVar("Declaration", Spec, TaskSpec)
BUILT_IN = (
    *("byte_level", "canonical", "cascade", "contrast", "ensemble", "ngram", "samplers", "searches", "selectors"),
    *("tasks", "warpers"),
)


def discover(
    *,
    third_party: str = "all",
    strict: bool = False,
    examine: Examine | None = None,
) -> Registry:
    """Load every plugin and return the registry, which holds the broken plugins too.

    Args:
        third_party: ``all``, ``none``, or a comma-separated list of the entry points to load.
        strict: raise the error of the first broken plugin.
        examine: asked for the faults of entry points before they are loaded; a plugin with a fault is broken and is
            not loaded.

    Raises:
        PluginError: a broken plugin if ``strict``; an entry point in the list that is not installed.

    >>> "uscd" in discover(third_party="none").names()
    True
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = [load_plugin(manager, name, "logitkit", functools.partial(_built_in, name)) for name in BUILT_IN]
    chosen = _chosen(entry_points(group=hookspecs.PROJECT), third_party)
    faults = examine(chosen) if examine else {}
    for entry in chosen:
        if entry in faults:
            plugins.append(Plugin(name=entry.name, origin=_origin(entry), error=faults[entry]))
            continue
        with announced(f"plugin {entry.name!r} (from {_origin(entry)})", PATIENCE):
            plugins.append(load_plugin(manager, entry.name, _origin(entry), entry.load))
    plugins = _without_collisions(plugins)
    for plugin in plugins:
        if strict and plugin.error:
            raise PluginError(plugin.fault) from plugin.error
    return Registry(plugins)


@functools.cache
def default_registry() -> Registry:
    """Return the registry of this process, discovered at the first call.

    The environment variable ``LOGITKIT_PLUGINS`` gives ``third_party`` of `discover`, and ``LOGITKIT_STRICT=1`` sets
    ``strict``. Both are read once.

    >>> default_registry() is default_registry()
    True
    """
    return discover(
        third_party=os.environ.get("LOGITKIT_PLUGINS", "all"),
        strict=os.environ.get("LOGITKIT_STRICT", "") not in ("", "0"),
    )


def _built_in(name: str) -> Any:
    return importlib.import_module(f"logitkit.plugins.{name}")


def _origin(entry: EntryPoint) -> str:
    """Return the distribution and version of an entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _chosen(entries: Iterable[EntryPoint], third_party: str) -> list[EntryPoint]:
    """Return the entry points to load, sorted by name.

    Raises:
        PluginError: a name in the list that no installed distribution declares.
    """
    installed = sorted(entries, key=lambda entry: (entry.name, entry.value))
    if third_party in ("all", ""):
        return installed
    wanted = [] if third_party == "none" else [name.strip() for name in third_party.split(",")]
    missing = sorted(set(wanted) - {entry.name for entry in installed})
    if missing:
        raise PluginError(
            f"LOGITKIT_PLUGINS: every name must be an installed plugin, got {', '.join(missing)}; "
            f"installed: {', '.join(entry.name for entry in installed) or 'none'}"
        )
    return [entry for entry in installed if entry.name in wanted]


def load_plugin(manager: pluggy.PluginManager, name: str, origin: str, load: Callable[[], Any]) -> Plugin:
    """Load one plugin and call its hooks; an exception makes it broken."""
    key = f"{name} ({origin})"
    try:
        with contained():
            module = load()
            _check_hooks(module)
            manager.register(module, name=key)
            specs = _declarations(manager.hook.logitkit_specs, module, Spec, origin)
            tasks = _declarations(manager.hook.logitkit_tasks, module, TaskSpec, origin)
        plugin = Plugin(name=name, origin=origin, specs=tuple(specs), tasks=tuple(tasks))
        _check_distinct(plugin.offers)
    except Exception as error:
        manager.unregister(name=key) if manager.has_plugin(key) else None
        return Plugin(name=name, origin=origin, error=error)
    return plugin


def _check_hooks(module: Any) -> None:
    """Check that a plugin implements at least one hook, by its name and without arguments.

    Raises:
        PluginError: what the author must change.
    """
    functions = dict(inspect.getmembers(module, inspect.isroutine))
    marked = {key: value for key, value in functions.items() if hasattr(value, f"{hookspecs.PROJECT}_impl")}
    for key, function in marked.items():
        if key not in HOOKS:
            raise PluginError(f"the hook must be named {' or '.join(HOOKS)}, got {key!r}; rename it")
        if inspect.signature(function).parameters:
            raise PluginError(f"{key}() must take no arguments, got {inspect.signature(function)}; remove them")
    if not marked:
        similar = [match for hook in HOOKS for match in get_close_matches(hook, functions, n=1)]
        unmarked = f", got {similar[0]}() without the decorator" if similar else ""
        raise PluginError(
            f"a plugin must have a logitkit hook{unmarked}; decorate {HOOKS[0]}() with @logitkit.hookimpl"
        )


def _declarations(caller: Any, module: Any, kind: type[Declaration], origin: str) -> list[Declaration]:
    """Call one hook of a plugin and return its declarations, marked with the origin of the plugin.

    Raises:
        PluginError: the hook returns anything but a list of this kind.
    """
    declarations: list[Declaration] = []
    for implementation in caller.get_hookimpls():
        if implementation.plugin is not module:
            continue
        returned = implementation.function()
        must, way_out = f"{caller.name}() must return", f"[logitkit.{kind.__name__}(...)]"
        if isinstance(returned, kind) or not isinstance(returned, Iterable):
            raise PluginError(f"{must} a list of {kind.__name__}s, got {returned!r:.80}; return {way_out}")
        for declaration in returned:
            if not isinstance(declaration, kind):
                raise PluginError(f"{must} {kind.__name__}s, got {type(declaration).__name__}; return {way_out}")
            if len(declarations) == MOST_DECLARATIONS:
                raise PluginError(f"{must} at most {MOST_DECLARATIONS} {kind.__name__}s, got more; return a list")
            declarations.append(_as_offered(declaration, kind, origin))
    return declarations


def _as_offered(declaration: Declaration, kind: type[Declaration], origin: str) -> Declaration:
    """Return a declaration, built again so that every field is checked, and marked with the origin of its plugin.

    Fields may have changed since the plugin built the declaration, and a subclass may skip the checks.
    """
    given = {part.name: getattr(declaration, part.name) for part in dataclasses.fields(kind)}
    return kind(**{**given, "plugin": origin})


def _check_distinct(names: Sequence[str]) -> None:
    """Refuse a plugin that offers a name twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NameTakenError(f"every name must be offered once, got {twice[0]!r} twice; rename one")


def _without_collisions(plugins: list[Plugin]) -> list[Plugin]:
    """Return the plugins, with each broken that offers a name of an earlier one; the earlier one keeps the name."""
    owners: dict[str, str] = {}
    checked: list[Plugin] = []
    for plugin in plugins:
        offers = plugin.offers
        taken = [name for name in offers if name in owners]
        if taken:
            error = NameTakenError(
                f"the name {taken[0]!r} must be offered by one plugin, got {owners[taken[0]]} and "
                f"{plugin.name} ({plugin.origin}); uninstall one, or choose with LOGITKIT_PLUGINS"
            )
            claims = tuple(spec.name for spec in plugin.specs)
            plugin, offers = Plugin(name=plugin.name, origin=plugin.origin, error=error, claims=claims), []
        owners |= dict.fromkeys(offers, f"{plugin.name} ({plugin.origin})")
        checked.append(plugin)
    return checked
