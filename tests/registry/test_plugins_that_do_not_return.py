"""A plugin that never returns, or ends the process, is named; a target that contradicts itself is found by `doctor`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from logitkit.registry.plugin_probe import probe

HOOK = "import logitkit\n@logitkit.hookimpl\ndef logitkit_specs():\n    "
SPEC = 'logitkit.Spec(name="tried", summary="s", source="here", target="{target}")'
CONTRADICTS = (
    "class Odd:\n    def __init__(self, *, power: float = 1.0): pass\n    def __call__(self, input_ids, scores): pass\n"
    "    @classmethod\n    def bind(cls, binding, *, power: float = 2.0): pass\n"
)
PLUGINS = {
    "loops": HOOK + "while True: pass",
    "sleeps": "import time\nwhile True: time.sleep(1)",
    "ends": HOOK + "import os; os._exit(7)",
    "contradicts": CONTRADICTS + HOOK + "return [" + SPEC.format(target="plugin_contradicts:Odd") + "]",
    "targets_nothing": HOOK + "return [" + SPEC.format(target="plugin_targets_nothing:Absent") + "]",
    "raises": "raise ImportError('gone')",
    "works": HOOK
    + "return ["
    + SPEC.format(target="plugin_contradicts:Odd").replace("plugin_contradicts:Odd", "plugin_works:Fine")
    + "]\nclass Fine:\n    def __call__(self, input_ids, scores): pass",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the modules of the plugins, in the path of this process."""
    for name, code in PLUGINS.items():
        (tmp_path / f"plugin_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def entry(name: str) -> EntryPoint:
    """The entry point of a plugin."""
    return EntryPoint(name=name, value=f"plugin_{name}", group="logitkit")


def test_a_plugin_that_does_not_return_is_ended(folder: Path) -> None:
    """The process of each such plugin is ended after the time limit."""
    faults = probe([entry("loops"), entry("sleeps")], time_limit=0.5)
    assert [name.name for name in faults] == ["loops", "sleeps"]
    for fault in faults.values():
        assert "must return, got no end within 0.5 s; correct it" in str(fault)


def test_faults_of_targets_and_exits_are_found(folder: Path) -> None:
    """Each fault belongs to its plugin, also behind one that ends the process; exceptions of an import are left out."""
    names = ["raises", "ends", "contradicts", "works", "targets_nothing"]
    faults = {found.name: str(fault) for found, fault in probe([entry(n) for n in names], time_limit=300).items()}
    assert set(faults) == {"ends", "contradicts", "targets_nothing"}
    assert "must return, got an exit of the process with status 7" in faults["ends"]
    assert "power must have one default, got 1.0 in __init__ and 2.0 in bind" in faults["contradicts"]
    assert "target 'plugin_targets_nothing:Absent' must be importable" in faults["targets_nothing"]


RUN = "logitkit.registry.laws.examples:run_example"
BODIES = {
    "good": "return scores",
    "raises_later": "raise KeyError('later')",
    "wrong_shape": "return scores[:, :3]",
    "loops_later": "while True: pass",
}


def with_example(folder: Path, name: str, example: str = "") -> EntryPoint:
    """Write a plugin whose processor has the body of this name, and return its entry point."""
    spec = SPEC.format(target=f"plugin_{name}:Tried").replace('name="tried"', f'name="{name}"')
    spec = spec.removesuffix(")") + f", example={example!r})"
    code = f"class Tried:\n    def __call__(self, input_ids, scores):\n        {BODIES.get(name, 'return scores')}\n"
    (folder / f"plugin_{name}.py").write_text(f"{HOOK}return [{spec}]\n{code}")
    return entry(name)


def test_examples_run_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example generates on the tiny model; a fault names the example."""
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [with_example(tmp_path, name) for name in ("good", "raises_later", "wrong_shape")]
    entries.append(with_example(tmp_path, "other_example", "cfg(1.5)"))
    found = {each.name: str(fault) for each, fault in probe(entries, time_limit=300, trial=RUN).items()}
    assert set(found) == {"raises_later", "wrong_shape", "other_example"}
    assert found["raises_later"].startswith("the example of raises_later, 'raises_later', must run, got raises_later (")
    assert "got KeyError: 'later'; correct __call__" in found["raises_later"] and "[2, 3]" in found["wrong_shape"]
    assert "example must be a chain of this processor alone, got 'cfg(1.5)'" in found["other_example"]
    assert not probe(entries, time_limit=300)


# As `run_example`, without torch, whose import takes most of the time that the limit would have to leave.
CALLS_TARGETS = (
    "import importlib\n\ndef trial(spec):\n    module, _, name = spec.target.partition(':')\n"
    "    getattr(importlib.import_module(module), name)()(None, [[0.0] * 9])\n"
)


def test_an_example_that_does_not_return_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the time limit, and the plugins behind it are still tried."""
    (tmp_path / "calls_targets.py").write_text(CALLS_TARGETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [with_example(tmp_path, name) for name in ("loops_later", "raises_later")]
    trial = "calls_targets:trial"
    found = {each.name: str(fault) for each, fault in probe(entries, time_limit=15, trial=trial).items()}
    assert "its import, its hooks and its examples must return, got no end within 15 s" in found["loops_later"]
    assert "must run, got 'later'" in found["raises_later"]


def installed(folder: Path, *names: str) -> dict[str, str]:
    """The environment of a process in which these plugins are installed."""
    for name in names:
        info = folder / f"dist_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[logitkit]\n{name} = plugin_{name}\n")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def test_doctor_ends_and_names_the_culprit(folder: Path) -> None:
    """Beside a plugin that loops and one that exits, `doctor` lists all plugins and exits with 1."""
    env = installed(folder, "loops", "ends")
    code = "import logitkit.cli\nlogitkit.cli.app(['doctor', '--json', '--time-limit', '4'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    plugins = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert done.returncode == 1 and not plugins["contrast"]["fault"]
    assert "plugin 'loops' (from dist-loops 1.0) is broken: its import" in plugins["loops"]["fault"]
    assert plugins["ends"]["fault"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent")
def test_list_names_the_plugin_that_it_waits_for(folder: Path) -> None:
    """While a hook loops, `list` says which plugin is being loaded, and Ctrl-C ends it."""
    code = (
        "import logitkit.cli, logitkit.registry.discovery as discovery\n"
        "discovery.PATIENCE = 0.3\nlogitkit.cli.app(['list'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=installed(folder, "loops")
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("logitkit: still loading plugin 'loops' (from dist-loops 1.0) after 0.3 s; press Ctrl-C"), (
        line
    )
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    process.stderr.close()
