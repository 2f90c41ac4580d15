"""Discovery loads each plugin separately; a broken plugin does not affect the others."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import logitkit
from logitkit.errors import NameTakenError, ParameterError, PluginError, UnknownNameError
from logitkit.registry import Spec, TaskSpec, discovery
from studies import listing

GOOD = {"summary": "s", "source": "here", "target": "transformers:TemperatureLogitsWarper"}


class Entry:
    """An entry point that returns a given module or raises a given error."""

    def __init__(self, name: str, load: Any) -> None:
        self.name, self.value, self._load = name, f"{name}:module", load
        self.dist = types.SimpleNamespace(name=f"dist-{name}", version="1.2")

    def load(self) -> Any:
        if isinstance(self._load, Exception):
            raise self._load
        return self._load


def plugin(hook: Any, name: str = "logitkit_specs") -> Any:
    """Return a module with one hook."""
    module = types.ModuleType("third")
    setattr(module, name, logitkit.hookimpl(hook))
    return module


def offering(*names: str) -> Any:
    """Return a module that offers processors of these names."""
    return plugin(lambda: [Spec(name=name, **GOOD) for name in names])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Discover with these entry points installed."""

    def discover(*entries: Entry, **options: Any) -> Any:
        monkeypatch.setattr(discovery, "entry_points", lambda group: list(entries))
        return discovery.discover(**options)

    return discover


def test_listing_names_and_specs_imports_no_torch() -> None:
    """In a fresh process, names and Specs are listed without torch, transformers and numpy."""
    code = (
        "import sys, logitkit; [logitkit.describe(n).as_data(schema=False) for n in logitkit.names()];"
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def imported(code: str, folder: Path) -> set[str]:
    """Return the modules that a fresh process imports for this code, with a folder on its path."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


LIST = "import contextlib, logitkit.cli\nwith contextlib.suppress(SystemExit): logitkit.cli.app(['list'])"


def test_each_of_fifty_plugins_costs_one_import(tmp_path: Path) -> None:
    """Listing fifty plugins imports their fifty modules and nothing else."""
    none, fifty = listing.install(tmp_path / "none", 0), listing.install(tmp_path / "fifty", 50)
    code = f"import logitkit; assert 'many_49' in logitkit.names()\n{LIST}"
    more = imported(code, fifty) - imported(LIST, none)
    ours = {name for name in more if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {f"many_plugins_{number}" for number in range(50)}
    assert not {"torch", "transformers", "numpy"} & imported(code, fifty)


def test_a_third_party_is_found_and_named(found: Any) -> None:
    """A third-party processor is listed with its distribution and version."""
    registry = found(Entry("mine", offering("my_processor")))
    assert "my_processor" in registry.names()
    assert registry.describe("my_processor").plugin == "dist-mine 1.2"


class Plugged:
    """A plugin that is an object instead of a module."""

    @logitkit.hookimpl
    def logitkit_specs(self) -> list[Spec]:
        return [Spec(name="from_an_object", **GOOD)]


def test_a_plugin_may_be_an_object(found: Any) -> None:
    """The methods of an object may implement the hooks."""
    assert "from_an_object" in found(Entry("object", Plugged())).names()


def exits() -> Any:
    """End the program."""
    raise SystemExit(3)


def unmarked() -> types.ModuleType:
    """Return a module whose author forgot the decorator."""

    def names() -> list[Spec]:
        return []

    module = types.ModuleType("third")
    module.logitkit_specs = names  # type: ignore[attr-defined]
    return module


BROKEN = {
    "import": (ImportError("no module named gone"), "ImportError: no module named gone; correct it, upgrade it, or"),
    "no hook": (
        types.ModuleType("empty"),
        "a plugin must have a logitkit hook; decorate logitkit_specs() with @logitkit.hookimpl",
    ),
    "unmarked hook": (unmarked(), "got logitkit_specs() without the decorator; decorate"),
    "misspelled hook": (
        plugin(lambda: None, "logitkit_spec"),
        "named logitkit_specs or logitkit_tasks, got 'logitkit_spec'; rename",
    ),
    "hook with arguments": (plugin(lambda model: []), "logitkit_specs() must take no arguments, got (model); remove"),
    "not specs": (plugin(lambda: ["uscd"]), "must return Specs, got str; return [logitkit.Spec(...)]"),
    "nothing": (plugin(lambda: None), "must return a list of Specs, got None; return [logitkit.Spec(...)]"),
    "one spec": (plugin(lambda: Spec(name="one", **GOOD)), "must return a list of Specs, got Spec(name='one'"),
    "one name twice": (offering("same", "same"), "every name must be offered once, got 'same' twice; rename one"),
    "raises": (plugin(lambda: 1 / 0), "ZeroDivisionError: division by zero; correct it"),
    "exits": (plugin(exits), "a plugin must not end the program when it is loaded, got SystemExit: 3; remove the exit"),
    "bad spec": (plugin(lambda: [Spec(name="Bad", **GOOD)]), "Spec: name must be snake_case, got 'Bad'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_does_not_affect_others(found: Any, fault: str) -> None:
    """The error is stored with its traceback, names the distribution, and is raised when the plugin's name is used."""
    load, says = BROKEN[fault]
    registry = found(Entry("bad", load), Entry("good", offering("fine")))
    assert {"uscd", "fine"} <= set(registry.names())
    (failed,) = [p for p in registry.plugins if p.error]
    assert failed.name == "bad" and failed.origin == "dist-bad 1.2" and failed.traceback
    assert failed.fault.startswith("plugin 'bad' (from dist-bad 1.2) is broken: ") and says in failed.fault
    with pytest.raises(PluginError) as raised:
        registry.describe("bad")
    assert str(raised.value) == failed.fault and raised.value.__cause__ is failed.error
    with pytest.raises(UnknownNameError, match=r"1 plugin\(s\) are broken, see `logitkit doctor`"):
        registry.describe("zzzzzzzzz")


def test_strict_raises_at_once(found: Any) -> None:
    """With strict, discovery raises the error of the first broken plugin."""
    with pytest.raises(PluginError, match="plugin 'bad'"):
        found(Entry("bad", ImportError("gone")), strict=True)


def test_a_taken_name_names_both(found: Any) -> None:
    """The first plugin keeps the name; the second is broken, and the error names both."""
    registry = found(Entry("thief", offering("uscd", "other_thing")))
    assert registry.describe("uscd").plugin == "logitkit"
    assert "other_thing" not in registry.names()
    (failed,) = [p for p in registry.plugins if p.error]
    assert isinstance(failed.error, NameTakenError)
    assert "contrast (logitkit) and thief (dist-thief 1.2)" in str(failed.error)
    with pytest.raises(PluginError, match="'uscd' must be offered by one plugin"):  # raised when the name is used
        registry.describe("other_thing")


def test_third_parties_can_be_chosen(found: Any) -> None:
    """``third_party`` is none, all or a list; a name that is not installed is an error."""
    entries = Entry("one", offering("first")), Entry("two", offering("second"))
    assert not {"first", "second"} & set(found(*entries, third_party="none").names())
    chosen = found(*entries, third_party="two").names()
    assert "second" in chosen and "first" not in chosen
    with pytest.raises(PluginError, match="got three; installed: one, two"):
        found(*entries, third_party="three")


def test_the_environment_is_read_at_the_front_door() -> None:
    """In a fresh process, an absent plugin in LOGITKIT_PLUGINS is an error."""
    code = "import os; os.environ['LOGITKIT_PLUGINS'] = 'absent'; import logitkit; logitkit.names()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "LOGITKIT_PLUGINS: every name must be an installed plugin, got absent" in done.stderr


TARGETS = {
    "nowhere:Thing": "must be importable, got ModuleNotFoundError",
    "transformers:Nothing": "must be importable, got AttributeError",
    "math:pi": "must be a class of processors, got float",
    "collections:OrderedDict": r"must define __call__\(input_ids, scores\)",
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_target_says_what_to_change(found: Any, target: str) -> None:
    """A wrong target raises an error on first use, with the distribution of the plugin."""
    registry = found(Entry("mine", plugin(lambda: [Spec(name="odd", **GOOD | {"target": target})])))
    with pytest.raises(PluginError, match=f"odd \\(from dist-mine 1.2\\).*{TARGETS[target]}"):
        registry.describe("odd").factory  # noqa: B018


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Kebab-Case"}, "snake_case"),
        ({"target": "nocolon"}, "module:Class"),
        ({"summary": ""}, "a sentence"),
        ({"parameters": {"rho": float}}, "parameters must be a pydantic model class, or left out"),
        ({"modes": {"beam": "no"}}, "no mode that Spec fine can refuse named 'beam'; did you mean 'beams'"),
    ],
)
def test_a_spec_checks_itself(change: dict[str, Any], says: str) -> None:
    """A Spec refuses a wrong field when it is constructed."""
    with pytest.raises((ParameterError, UnknownNameError), match=says):
        Spec(**{"name": "fine", **GOOD, **change})


def offering_tasks(*names: str) -> Any:
    """Return a module that offers tasks of these names."""
    given = {"summary": "s", "source": "here", "target": "logitkit.bench.tasks.text_tasks:GSM8K"}
    return plugin(lambda: [TaskSpec(name=name, **given) for name in names], "logitkit_tasks")


def test_a_plugin_may_offer_tasks(found: Any) -> None:
    """Tasks of a plugin are listed beside the built-in ones, with their distribution."""
    registry = found(Entry("third", offering_tasks("riddles", "cfg")))
    assert {"riddles", "gsm8k", "cfg"} <= set(registry.tasks())
    assert registry.describe_task("riddles").plugin == "dist-third 1.2" and "riddles" not in registry.names()
    with pytest.raises(UnknownNameError, match="no task named 'ridles'; did you mean 'riddles'"):
        registry.describe_task("ridles")


def test_a_taken_task_breaks_its_plugin(found: Any) -> None:
    """A taken task name, and a hook that returns no TaskSpecs, each break their plugin alone."""
    registry = found(Entry("third", offering_tasks("arc")), Entry("wrong", plugin(lambda: [1], "logitkit_tasks")))
    broken = {plugin.name: plugin.error for plugin in registry.plugins if plugin.error}
    assert isinstance(broken["third"], NameTakenError) and "'task arc'" in str(broken["third"])
    assert "logitkit_tasks() must return TaskSpecs, got int" in str(broken["wrong"])
    assert registry.describe_task("arc").plugin == "logitkit"
