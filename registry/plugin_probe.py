"""Loading plugins in another process, with a time limit: a plugin that never returns is found and named."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pluggy

from logitkit.errors import PluginError
from logitkit.registry import discovery, hookspecs
from logitkit.registry.foreign_code import text_of

CHILD = "import sys; from logitkit.registry import plugin_probe; plugin_probe.write_faults(*sys.argv[1:])"
PAUSE = 0.02  # seconds between two looks at the answers of the other process


def probe(entries: Sequence[EntryPoint], *, time_limit: float, trial: str = "") -> dict[EntryPoint, Exception]:
    """Load plugins, import the targets that they offer, and read their parameters, in another process.

    Args:
        entries: the entry points of the plugins.
        time_limit: seconds that one plugin may take; its process is then ended, and another one goes on.
        trial: ``module:function`` that is called there with every Spec, such as `laws.examples.run_example`; it raises
            an exception where the processor does not work.

    Returns:
        The faults: a plugin did not return in time, ended the process, or has a broken target. Exceptions of its
        import or its hooks are left out, because loading it in this process shows them too.
    """
    faults: dict[EntryPoint, Exception] = {}
    waiting = list(entries)
    while waiting:
        answers, end = _answers(waiting, time_limit, trial)
        for entry, answer in zip(waiting, answers, strict=False):
            if answer:
                faults[entry] = PluginError(answer)
        if len(answers) < len(waiting):
            culprit = waiting[len(answers)]
            parts = "its import, its hooks and its examples" if trial else "its import and its hooks"
            faults[culprit] = PluginError(f"{parts} must return, got {end}; correct it, or pip uninstall it")
        waiting = waiting[len(answers) + 1 :]
    return faults


def _answers(entries: Sequence[EntryPoint], time_limit: float, trial: str) -> tuple[list[str], str]:
    """Return the faults of the plugins that the other process answered for, and how the process ended."""
    with tempfile.TemporaryDirectory(prefix="logitkit-") as folder:
        file = Path(folder) / "faults"
        file.touch()
        names = json.dumps([(entry.name, entry.value) for entry in entries])
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with names of installed entry points
            [sys.executable, "-c", CHILD, names, str(file), trial],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        size, since = 0, time.monotonic()
        while process.poll() is None and time.monotonic() < since + time_limit:
            time.sleep(PAUSE)
            if file.stat().st_size > size:
                size, since = file.stat().st_size, time.monotonic()
        late = process.poll() is None
        process.kill()
        status = process.wait()
        end = f"no end within {time_limit:g} s" if late else f"an exit of the process with status {status}"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # the last line is unfinished, or empty
    return [json.loads(line) for line in lines], end


def write_faults(names: str, file: str, trial: str) -> None:
    """Load the plugins of entry points in this process; write one line with the first fault of each."""
    with open(file, "a", encoding="utf-8") as answers:  # noqa: PTH123 - appended line by line
        for name, value in json.loads(names):
            entry = EntryPoint(name=name, value=value, group=hookspecs.PROJECT)
            answers.write(json.dumps(_fault(entry, trial)) + "\n")
            answers.flush()


def _fault(entry: EntryPoint, trial: str) -> str:
    """Return the first fault of the targets of a plugin, or of the trial of its Specs, or ""."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = discovery.load_plugin(manager, entry.name, entry.name, entry.load)
    try:
        for spec in plugin.specs:
            _ = spec.model
        for task in plugin.tasks:
            _ = task.model
    except Exception as error:
        return text_of(error)
    module, _, function = trial.partition(":")
    for spec in plugin.specs if trial else ():
        try:
            getattr(importlib.import_module(module), function)(spec)
        except Exception as error:
            return f"the example of {spec.name}, {spec.example or spec.name!r}, must run, got {text_of(error)}"
    return ""
