"""Packages that only an extra installs: without one, the error names it, and everything else works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fresh import ROOT
from logitkit.errors import MissingPackageError

ABSENT = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {names!r} else found(name, *more)
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
EXTRAS = ["scipy", "statsmodels", "gguf", "accelerate", "rapidfuzz", "ray", "lm_eval", "datasets", "matplotlib"]


def run(code: str, *names: str) -> str:
    """Run a program that finds none of these packages, and return what it prints."""
    program = ABSENT.format(names=set(names)) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("import logitkit.bench.report", "scipy", "bench"),
        ("import logitkit.bench.report", "statsmodels", "bench"),
        (
            "from logitkit.processors.alignment.nearest import nearest_targets\n"
            "nearest_targets([b'abcdefgh'], [b'stuvwxyz', b'opqrst'])",
            "rapidfuzz",
            "ensembles",
        ),
        (
            "from logitkit.models import catalog, sources\nsources.check_gguf(catalog.SMOLLM2)",
            "gguf",
            "models",
        ),
        (
            "from typer.testing import CliRunner\nfrom logitkit.cli import app\n"
            "result = CliRunner().invoke(app, ['bench', '--task', 'lambada'])\n"
            "assert result.exit_code == 1, result.output\nprint(result.stderr)",
            "statsmodels",
            "bench",
        ),
    ],
)
def test_the_error_names_the_extra(code: str, package: str, extra: str) -> None:
    """One sentence with the command that installs the package."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    program = (
        f"from logitkit.errors import MissingPackageError\ntry:\n{body}\nexcept MissingPackageError as error:\n"
        "    print(error)\n"
    )
    said = " ".join(run(program, package).split())
    assert f"{package} must be installed, got no such package; run: pip install 'logitkit[{extra}]'" in said


def test_a_plain_installation_lists_binds_and_generates() -> None:
    """Without any package of an extra, ensembles by exact alignment included."""
    code = (
        "import logitkit\nfrom logitkit.registry.laws import *\n"
        "model, tokenizer = tiny_model(), tiny_tokenizer()\n"
        "settings = {'max_new_tokens': 3, 'do_sample': False}\n"
        "logitkit.generate(model, tokenizer, 'ab', chain='cfg(2.0) | top_p(0.9)', **settings)\n"
        "done = logitkit.generate(model, tokenizer, 'ab', chain=\"ensemble(models=['other'], align='exact')\",\n"
        "    resources={'other': foreign_model()}, tokenizers={'other': foreign_tokenizer()}, **settings)\n"
        "print(len(logitkit.names()) > 20, len(done.texts))"
    )
    assert run(code, *EXTRAS) == "True 1"


def test_the_error_is_an_import_error() -> None:
    """Programs that catch `ImportError` go on as before."""
    assert issubclass(MissingPackageError, ImportError)
