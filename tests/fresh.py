"""The built wheel in a fresh environment, beside the heavy libraries of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """The project's wheel, built from nothing."""
    copy = folder / "source"  # a build leaves files behind, which would find their way into the next one
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


class Fresh:
    """A fresh environment with the wheel in it; what the wheel depends on is seen behind its own packages.

    Args:
        folder: where it is made.
        wheel: what is installed first.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.install(str(wheel))  # before the others are seen, or pip would find logitkit among them
        (own,) = (folder / "lib").glob("python*/site-packages")
        heavy = [path for path in sys.path if path.endswith("site-packages")]
        (own / "heavy.pth").write_text("\n".join(heavy) + "\n")

    def install(self, *arguments: str, cwd: Path | None = None) -> None:
        """Install by pip, from nowhere but what is given."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        alone = ["--no-deps", "--no-index", "--no-build-isolation"]
        done = subprocess.run([*pip, "install", "-q", *alone, *arguments], capture_output=True, text=True, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr

    def __call__(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment: ``python ...``, or ``logitkit ...``."""
        program, *rest = arguments
        return subprocess.run(
            [str(self.python.parent / program), *rest],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | environment,
        )
