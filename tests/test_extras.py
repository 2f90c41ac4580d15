"""Packages that only an extra installs: without one, the error names it, and everything else works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import logitkit
import logitkit.models
from fresh import ROOT
from logitkit.cli import app
from logitkit.errors import MissingPackageError, ParameterError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.required_package import RequiredPackage
from logitkit.registry.spec import Spec

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
EXTRAS = ["scipy", "statsmodels", "gguf", "accelerate", "rapidfuzz", "ray", "lm_eval", "datasets", "llguidance"]
EXTRAS += ["fastapi", "uvicorn"]


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


GRAMMAR = "grammar(regex='a')"
MINED = "core(models=['other'], align='mined')"


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["bench", "--task", "cut_sentences", "--chain", "byte_boundary()"], "scipy", "bench"),
        (["bench", "report", "run.yaml"], "statsmodels", "bench"),
        (["bench", "power", "--discordant", "0.2"], "scipy", "bench"),
        (["bench", "--task", "cut_sentences", "--engine", "ray"], "ray", "ray"),
        (["label-divergence", "a", "b", "--small", "a", "--large", "b", "--engine", "ray"], "ray", "ray"),
        (["train-attribute", "a", "b", "--model", "a", "--engine", "ray"], "ray", "ray"),
        (["membership", "a", "--engine", "ray"], "ray", "ray"),
        (["bench", "--task", "cut_sentences", "--chain", GRAMMAR], "llguidance", "grammar"),
        (["run", "a", "--chain", GRAMMAR], "llguidance", "grammar"),
        (["run", "a", "--chain", MINED], "rapidfuzz", "ensembles"),
        (["run", "a", "--chain", "contrastive(amateur='other', align='mined')"], "rapidfuzz", "ensembles"),
        (["inspect", "a", "--against", GRAMMAR], "llguidance", "grammar"),
        (["check", "grammar"], "llguidance", "grammar"),
        (["serve"], "fastapi", "serve"),
        (["serve"], "uvicorn", "serve"),
        (["check", MINED], "rapidfuzz", "ensembles"),
    ],
)
def test_a_command_says_so_before_it_loads_a_model(
    arguments: list[str], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence and exit status 1; the function that loads models is never called."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    monkeypatch.setattr(logitkit.models, "load", lambda *names, **more: pytest.fail("a model is loaded"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    told = " ".join(result.stderr.split())
    assert told.endswith(f"{package} must be installed, got no such package; run: pip install 'logitkit[{extra}]'")


def test_a_chain_says_so_before_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the values that need the package alone; reading, writing and hashing such a chain needs nothing."""
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    chain = logitkit.chain("ensemble(models=['no/model', 'no/other'], align=['gac', 'mined'])")
    with pytest.raises(MissingPackageError, match=r"^ensemble: rapidfuzz must be installed"):
        chain.bind(tiny_model(), tiny_tokenizer(), "a")
    logitkit.chain("ensemble(models=['no/model'])").require_packages()


def test_a_plugin_declares_the_packages_of_its_own_extras() -> None:
    """The error names the distribution of the plugin, and anything but such declarations is refused."""
    facts = {"name": "odd", "summary": "Do.", "source": "here", "target": "transformers:TemperatureLogitsWarper"}
    package = RequiredPackage(name="no_such_package", extra="fast")
    spec = Spec(**facts, needs_packages=[package]).offered_by("their-plugin 1.0")
    assert spec.as_data(schema=False)["needs_packages"] == [{"name": "no_such_package", "extra": "fast", "values": {}}]
    chain = logitkit.Chain("odd(temperature=1.0)", registry=Registry([Plugin(name="odd", origin="", specs=(spec,))]))
    with pytest.raises(MissingPackageError, match=r"run: pip install 'their-plugin\[fast\]'$"):
        chain.require_packages()
    with pytest.raises(ParameterError, match="Spec odd: needs_packages must be a tuple of RequiredPackage"):
        Spec(**facts, needs_packages=("no_such_package",))


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
