"""A faulty plugin does not stop `logitkit list`; `logitkit doctor` names the plugin and the fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.errors import ParameterError, PluginError, UnknownNameError
from logitkit.registry import Spec, TaskSpec
from logitkit.registry.foreign_code import contained
from logitkit.registry.registry import Plugin
from logitkit.registry.target import load_target

SPEC = 'logitkit.Spec(name="{name}", summary="s", source="here", target="transformers:TemperatureLogitsWarper"'
HOOK = "import logitkit\n@logitkit.hookimpl\ndef logitkit_specs():\n    "
ONE = HOOK + "return [" + SPEC
UNTEXTUAL = "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Odd()"

FAULTS = {
    "base_exception": ("class Stop(BaseException): pass\nraise Stop('early')", "got Stop: early"),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError()", "subclasses of Exception alone"),
    "exits": ("import sys\nsys.exit(0)", "got SystemExit: 0; remove the exit"),
    "untextual": (UNTEXTUAL, "Odd: (its __str__ raises RuntimeError)"),
    "surrogate": ("raise ValueError('\\udc80[/INST]')", "ValueError: \\udc80[/INST]"),
    "endless": (HOOK + "while True: yield " + SPEC + ")", "at most 1000 Specs, got more"),
    "keyword": (ONE.replace("{name}", "lambda") + ")]", "no keyword of Python, got 'lambda'"),
    "number": (ONE + ", formula=3)]", "formula must be a text, got 3"),
    "flag": (ONE + ", discards='no')]", "discards must be True or False, got 'no'"),
    "mapping": (ONE + ", laws=[1])]", "laws must be a mapping of texts to texts, got [1]"),
    "values": (ONE + ", modes={{'beams': object}})]", "modes must be a mapping of texts to texts"),
    "text_for_tuple": (ONE + ", needs='a')]", "needs must be a tuple of texts, got 'a'"),
    "none": (ONE + ", needs_models=None)]", "needs_models must be a tuple of texts, got None"),
    "escape": (ONE + ", family='\\x1b[2J')]", "family must be printable text in one line"),
    "changed_later": (
        HOOK + "spec = " + SPEC + "); object.__setattr__(spec, 'summary', object()); return [spec]",
        "summary must be a text",
    ),
    "long": (
        ONE.replace('"s"', "'x' * 10_000_000") + ")]",
        "summary must be a text of at most 10000 characters, got 'xxx",
    ),
    "long_name": (ONE.replace('"{name}"', "'x' * 101") + ")]", "name must be a text of at most 100 characters"),
    "reversed": (ONE.replace('"s"', "'a\\u202eb'") + ")]", "summary must be printable text in one line"),
    "text_of_its_own": (
        "class Odd(str):\n    def __str__(self): raise RuntimeError('no text')\n    __repr__ = __str__\n"
        + ONE.replace('"s"', "Odd('s')")
        + ")]",
        "summary must be a text, got <class",
    ),
    "revision": (ONE + ", revision='2')]", "revision must be a whole number >= 1, got '2'"),
    "absent": ("raise ModuleNotFoundError('numba')", "ModuleNotFoundError: numba"),
    "changes_folder": (
        "import os\nos.chdir(os.sep)\n" + ONE + ")]",
        "must leave the current folder alone when it is loaded, got ",
    ),
    "unchecked_subclass": (
        "import logitkit\nclass Mine(logitkit.Spec):\n    def __post_init__(self): pass\n"
        + HOOK
        + "return ["
        + SPEC.replace("logitkit.Spec", "Mine")
        + ", cost=3)]",
        "cost must be a text",
    ),
}
HARMLESS = {
    "markup": ONE.replace('"s"', '"ends [/INST] and [bold"') + ", family='[/x]')]",
    "writes_to_descriptors": "import os, sys, atexit\natexit.register(print, 'at the end')\n"
    "os.write(1, b'to the descriptor')\nprint('to the original', file=sys.__stdout__)\nos.system('echo from a child')\n"
    + ONE
    + ")]",
    "prints": "print('at import')\n" + HOOK + "print('in the hook'); return [" + SPEC + ")]",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one distribution for each plugin."""
    folder: Path = tmp_path_factory.mktemp("plugins")
    for name, code in {**{name: code for name, (code, _) in FAULTS.items()}, **HARMLESS}.items():
        text = code.replace("{name}", f"from_{name}").replace("{{", "{").replace("}}", "}")
        (folder / f"plugin_{name}.py").write_text(text)
        info = folder / f"dist_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[logitkit]\n{name} = plugin_{name}\n")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a fresh process in which the plugins are installed."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    code = f"import logitkit.cli\nlogitkit.cli.app({list(arguments)!r})"
    env = os.environ | {"PYTHONPATH": path, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)


def test_list_works_beside_every_fault(installed: Path) -> None:
    """Both forms of `list` show the plugins that work, and prints of plugins are no part of the JSON."""
    table, data = run(installed, "list"), run(installed, "list", "--json")
    assert table.returncode == 0 and "ends [/INST] and [bold" in table.stdout, table.stderr
    names = {spec["name"] for spec in json.loads(data.stdout)}
    assert {"uscd", "from_markup", "from_prints"} <= names
    assert names & {f"from_{name}" for name in FAULTS} == set()
    for text in ("in the hook", "to the descriptor", "to the original", "from a child", "at the end"):
        assert text in data.stderr


def test_doctor_names_every_culprit(installed: Path) -> None:
    """`doctor` exits with 1 and names the plugin, its distribution and the fault, in both forms."""
    table, data = run(installed, "doctor"), run(installed, "doctor", "--json")
    assert table.returncode == data.returncode == 1, table.stderr
    faults = {plugin["name"]: plugin["fault"] for plugin in json.loads(data.stdout) if plugin["fault"]}
    assert set(faults) == set(FAULTS)
    for name, (_, says) in FAULTS.items():
        assert f"plugin {name!r} (from dist-{name} 1.0) is broken: " in faults[name] and says in faults[name]
        assert f"{name} (dist-{name} 1.0)" in table.stdout


def test_show_of_a_broken_plugin_names_it(installed: Path) -> None:
    """A broken plugin that is asked for ends `show` with its fault in one line, without a traceback."""
    done = run(installed, "show", "untextual")
    assert done.returncode == 1 and "its __str__ raises RuntimeError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_target_is_contained_too(installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A target whose module prints, exits or raises a BaseException is a PluginError, and its prints are diverted."""
    monkeypatch.syspath_prepend(str(installed))
    for name in ("base_exception", "exits", "untextual"):
        with pytest.raises(PluginError, match=f"target 'plugin_{name}:Thing' must be importable"):
            load_target("odd (from dist 1.0)", f"plugin_{name}:Thing")
    with pytest.raises(PluginError, match="must be importable, got AttributeError"):
        load_target("odd (from dist 1.0)", "plugin_prints:Thing")
    assert capsys.readouterr().out == ""


def test_settings_of_torch_that_a_plugin_changes_are_set_back() -> None:
    """The default dtype and the gradient mode are as before, and the change is a fault of the plugin."""
    dtype = pytest.raises(PluginError, match=r"leave the default dtype of torch alone when it is loaded, got float64")
    with dtype, contained():
        torch.set_default_dtype(torch.float64)
    gradients = pytest.raises(PluginError, match=r"must leave the gradient mode of torch alone .* got False")
    with gradients, contained():
        torch.set_grad_enabled(False)
    with pytest.raises(ImportError, match="gone"), contained():
        torch.set_grad_enabled(False)
        raise ImportError("gone")
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_a_keyboard_interrupt_is_the_users() -> None:
    """A KeyboardInterrupt while a plugin is imported ends the program."""
    code = (
        "from logitkit.registry.foreign_code import contained\n"
        "try:\n"
        "    with contained(): raise KeyboardInterrupt\n"
        "except KeyboardInterrupt: print('ended')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "ended\n"


def test_a_fault_without_text_is_still_shown() -> None:
    """The fault and the traceback of an exception whose text cannot be computed are texts."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    plugin = Plugin(name="odd", origin="odd 1.0", error=OddError())
    assert "OddError: (its __str__ raises RuntimeError)" in plugin.fault and "OddError" in plugin.traceback


GIVEN: dict[str, Any] = {"name": "fine", "summary": "s", "source": "here", "target": "some:Class"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3},
        {"name": "class"},
        {"summary": b"s"},
        {"summary": "two\nlines"},
        {"source": ["here"]},
        {"target": None},
        {"executes": 1},
        {"mode": ["generate"]},
    ],
)
def test_a_task_spec_checks_its_types(wrong: dict[str, Any]) -> None:
    """A wrong type in a TaskSpec is a ParameterError; so it is in a Spec that has the field."""
    with pytest.raises(ParameterError):
        TaskSpec(**{**GIVEN, **wrong})
    if not {"executes", "mode"} & set(wrong):
        with pytest.raises(ParameterError):
            Spec(**{**GIVEN, **wrong})


def test_tuples_are_stored_as_tuples_and_mappings_as_copies() -> None:
    """A list becomes a tuple; a mapping that the plugin changes later leaves the Spec unchanged; no iterator passes."""
    modes = {"beams": "a reason"}
    spec = Spec(**GIVEN, needs=["a table"], modes=modes)
    modes["beams"] = "another"
    assert spec.needs == ("a table",) and spec.modes == {"beams": "a reason"}
    with pytest.raises(ParameterError, match="needs must be a tuple of texts"):
        Spec(**GIVEN, needs=iter(["a table"]))
    with pytest.raises(UnknownNameError):
        Spec(**GIVEN, modes={"beam": "a reason"})
