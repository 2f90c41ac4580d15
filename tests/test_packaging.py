"""What is built is what is here: the wheel holds every module, and every module imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]

ADAPTERS = {"logitkit.adapters.vllm", "logitkit.adapters.lm_eval"}  # each needs the library that it is named after


def modules() -> list[str]:
    """Import names of every Python file of the package."""
    return sorted(
        package if path.stem == "__init__" else f"{package}.{path.stem}"
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).glob("*.py")
    )


def test_every_folder_with_modules_is_packaged() -> None:
    """The hand list in pyproject.toml is complete."""
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {f"logitkit.{name}" for name in tops} | {"logitkit"} == set(FOLDERS)
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(FOLDERS)


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
    copy = tmp_path / "source"  # a build leaves files behind, which would find their way into the next one
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".py", "py.typed"))}
    wanted = {name.replace(".", "/") for name in modules()}
    assert held == {f"{name}/__init__.py" if name.replace("/", ".") in FOLDERS else f"{name}.py" for name in wanted} | {
        "logitkit/py.typed"
    }
    templates = {f"logitkit/templates/{path.name}" for path in (ROOT / "src/logitkit/templates").iterdir()}
    assert templates and templates <= set(zipfile.ZipFile(wheel).namelist())
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(fresh)], check=True)
    python = str(fresh / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    # The dependencies are those of this run, seen after the fresh environment's own packages.
    code = "import sys, importlib; sys.path.extend(sys.argv[1].split(':'))\n"
    names = [name for name in modules() if name not in ADAPTERS]
    code += f"for name in {names!r}: importlib.import_module(name)\n"
    code += "import logitkit; print(logitkit.__file__)"
    here = ":".join(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run([python, "-c", code, here], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(fresh) in done.stdout
