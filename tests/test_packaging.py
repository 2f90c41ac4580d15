"""The wheel holds every module and template of the repository, and every module imports."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import logitkit
from fresh import ROOT, Fresh, build_wheel

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]

# Each imports a library that is an optional dependency: the one of its name, or FastAPI.
ADAPTERS = {"logitkit.adapters.vllm", "logitkit.adapters.lm_eval", "logitkit.serving.routes"}


def modules() -> list[str]:
    """Return the import name of every module; src/logitkit links to the packages at the top of the repository."""
    found = []
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            if package != "logitkit" or f"logitkit.{inner[0]}" not in FOLDERS:
                found.append(".".join([package, *inner]).removesuffix(".__init__"))
    return sorted(found)


def packages() -> set[str]:
    """Return the import name of every folder with an ``__init__.py``."""
    return {name for name in modules() if (folder_of(name) / "__init__.py").is_file()}


def folder_of(name: str) -> Path:
    """Return the folder of a package."""
    top = max((package for package in FOLDERS if f"{name}.".startswith(f"{package}.")), key=len)
    return ROOT.joinpath(FOLDERS[top], *name.removeprefix(top).strip(".").split("."))


def test_every_folder_with_modules_is_packaged() -> None:
    """pyproject.toml lists every package; studies and tests are not packaged."""
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "studies"}
    assert {f"logitkit.{name}" for name in tops} | {"logitkit"} == set(FOLDERS)
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages()


def test_no_module_is_loaded_twice() -> None:
    """No test imports a package by its bare folder name, which would load a second copy of every class."""
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
    """A freshly built wheel is installed into an empty environment that sees the present dependencies."""
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    sources = ROOT / "src"
    found = [path for depth in ("*", "*/*") for path in (sources / "logitkit").glob(f"{depth}/templates/*")]
    templates = {path.relative_to(sources).as_posix() for path in found}
    assert templates and templates == {name for name in names if "/templates/" in name}
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


def test_versions_agree() -> None:
    """pyproject.toml, CITATION.cff and the installed package name one version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["project"]["version"] == citation["version"] == logitkit.__version__
