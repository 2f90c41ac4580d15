"""The server under Ray Serve: its arguments. The replicas themselves are tested in tests/execution/test_ray.py."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import yaml

from fresh import ROOT
from logitkit.errors import MissingPackageError, ParameterError, UnknownNameError
from logitkit.serving import ray_serve
from logitkit.serving.ray_serve import RayArguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"replica": 2}, UnknownNameError, "did you mean 'replicas'"),
        ({"replicas": 0}, ParameterError, "serve: replicas must be greater than or equal to 1, got 0"),
        ({"own_chains": "perhaps"}, ParameterError, "serve: own_chains must be a valid boolean"),
        ({"timeout": "nan"}, ParameterError, "serve: timeout must be a number of seconds > 0"),
        ({"chain": "cgf(1.5)"}, UnknownNameError, "did you mean 'cfg'"),
    ],
)
def test_a_wrong_argument_is_refused_before_ray_starts(arguments: Any, error: Any, message: str) -> None:
    """In the words of the other commands."""
    with pytest.raises(error, match=message):
        ray_serve.app(arguments)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Ray is installed without Ray Serve."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'logitkit\[ray\]'"):
        ray_serve.app({})


def test_a_replica_has_the_engine_of_the_command(tiny_checkpoint: str) -> None:
    """Texts of a command line become numbers and switches; limits and names are those of the engine."""
    given = {"model": tiny_checkpoint, "max_batch": "3", "own_chains": "false", "chain": "top_k(5)"}
    engine = RayArguments.model_validate(given).load()
    assert (engine.limits.max_batch, engine.own_chains, str(engine.chain)) == (3, False, "top_k(top_k=5)")
    assert engine.name == tiny_checkpoint and engine.model.dtype.is_floating_point


def test_the_page_shows_every_argument_and_a_valid_file() -> None:
    """The command and the configuration of docs/serve.md are read as Ray Serve reads them."""
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^serve run (\S+) (.*)$", page, re.MULTILINE)
    (application,) = yaml.safe_load(block)["applications"]
    assert application["import_path"] == command[0] == f"{ray_serve.app.__module__}:{ray_serve.app.__name__}"
    assert RayArguments.model_validate(application["args"]).gpus == 1
    typed = dict(word.split("=") for word in command[1].split())
    assert RayArguments.model_validate(typed).replicas == 2
    missing = [name for name in RayArguments.model_fields if f"`{name}`" not in page and f"    {name}: " not in block]
    assert missing == []
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed: pip install 'logitkit[ray]'")
    schema.ServeDeploySchema.model_validate(yaml.safe_load(block))
