"""The built wheel in a fresh virtual environment that also sees the installed dependencies of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the project from a clean copy and return its path."""
    copy = folder / "source"  # a build leaves files in the source folder, which the next build would package
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


class Fresh:
    """A fresh virtual environment with the wheel; imports fall back to the packages of this environment.

    Args:
        folder: folder of the environment.
        wheel: the wheel to install.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.install(str(wheel))  # before the fallback exists, in which pip could find an installed logitkit
        (own,) = (folder / "lib").glob("python*/site-packages")
        fallback = [path for path in sys.path if path.endswith("site-packages")]
        (own / "fallback.pth").write_text("\n".join(fallback) + "\n")

    def install(self, *arguments: str, cwd: Path | None = None) -> None:
        """Install local distributions with pip, without dependencies and without a package index."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        offline = ["--no-deps", "--no-index", "--no-build-isolation"]
        result = subprocess.run([*pip, "install", "-q", *offline, *arguments], capture_output=True, text=True, cwd=cwd)
        assert result.returncode == 0, result.stdout + result.stderr

    def __call__(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python ...`` or ``logitkit ...`` of the environment and return the finished process."""
        program, *rest = arguments
        return subprocess.run(
            [str(self.python.parent / program), *rest],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | environment,
        )
