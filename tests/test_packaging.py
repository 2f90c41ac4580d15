"""What is built is what is here: the wheel holds every module, and every module imports."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fresh import ROOT, Fresh, build_wheel

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]

ADAPTERS = {"logitkit.adapters.vllm", "logitkit.adapters.lm_eval"}  # each needs the library that it is named after


def modules() -> list[str]:
    """Import names of every Python file of the package; the parts at the top are links in src/logitkit."""
    found = []
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            if package != "logitkit" or f"logitkit.{inner[0]}" not in FOLDERS:
                found.append(".".join([package, *inner]).removesuffix(".__init__"))
    return sorted(found)


def packages() -> set[str]:
    """Import names of every folder with an ``__init__.py``."""
    return {name for name in modules() if (folder_of(name) / "__init__.py").is_file()}


def folder_of(name: str) -> Path:
    """The folder that a package of this import name has."""
    top = max((package for package in FOLDERS if f"{name}.".startswith(f"{package}.")), key=len)
    return ROOT.joinpath(FOLDERS[top], *name.removeprefix(top).strip(".").split("."))


def test_every_folder_with_modules_is_packaged() -> None:
    """The hand list in pyproject.toml is complete; the studies and the tests stay out of the wheel."""
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "studies"}
    assert {f"logitkit.{name}" for name in tops} | {"logitkit"} == set(FOLDERS)
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages()


def test_no_module_is_loaded_twice() -> None:
    """The bare folder names would make a second copy of every class."""
    ours = {str((ROOT / folder).resolve()) for package, folder in FOLDERS.items() if package != "logitkit"}
    bare = [
        name
        for name, module in sys.modules.items()
        if not name.startswith("logitkit")
        and any(
            str(Path(getattr(module, "__file__", None) or "/").resolve()).startswith(f"{folder}/") for folder in ours
        )
    ]
    assert bare == []


@pytest.mark.slow
def test_the_wheel_installs_and_every_module_imports(tmp_path: Path) -> None:
    """Built from nothing, installed beside the present dependencies into a fresh environment."""
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    sources = ROOT / "src"
    templates = {path.relative_to(sources).as_posix() for path in (sources / "logitkit").glob("*/templates/*")}
    assert templates and templates == {name for name in names if "templates" in name}
    held = {name for name in names if name.endswith((".py", "py.typed"))}
    inner = packages()
    wanted = {name.replace(".", "/") + ("/__init__.py" if name in inner else ".py") for name in modules()}
    assert held == wanted | {"logitkit/py.typed"}
    fresh = Fresh(tmp_path / "fresh", wheel)
    names = [name for name in modules() if name not in ADAPTERS]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    done = fresh("python", "-c", code + "import logitkit; print(logitkit.__file__)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
