"""The public names of the benchmark: what importing them costs, and that lazy names resolve."""

from __future__ import annotations

import subprocess
import sys

import pytest

from logitkit import bench
from logitkit.bench import config, tasks


def test_task_writers_need_no_torch() -> None:
    """Importing the benchmark, a run and the interface of tasks imports no torch."""
    code = (
        "import sys; from logitkit.bench import Run, Task, Metric, Sample, Request, Answer, Scored;"
        "import logitkit.bench.tasks, logitkit.bench.config;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("package", [bench, config, tasks])
def test_public_names_resolve(package: object) -> None:
    """Every public name of a package is an attribute, also when its module is imported lazily."""
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]
