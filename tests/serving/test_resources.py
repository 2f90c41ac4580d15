"""What chains of requests may name: the operator's names, and nothing else that loads a model or reads a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import discover
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.serving import Resources
from logitkit.serving.batch_run import BatchRun
from logitkit.serving.resources import NAMING_KEYS, WORDS
from logitkit.serving.row import Prompt

REFUSED = (
    "contrastive(amateur='gpt2')",
    "dexperts(expert='large', antiexpert='/models/secret')",
    "ensemble(models=['large', 'owner/model'], align='gac')",
    "ngram_style(table='/etc/passwd')",
    "router(large='large', head='/etc')",
    "router(large='large', head='heads')",
    "ensemble(models=['large'], align='x.safetensors')",
    "core(models=['large'], align=['x.safetensors'])",
    "adadec(threshold='/etc/hostname')",
    "attribute('scorer')",
    "attribute({'head': '/etc'})",
    "attribute({'contains': ['the'], 'model': 'x'})",
    "best_of(by='judge')",
    "mbr(utility='metric')",
    "smc(target='log_weight', log_weight='f')",
    "cascade(large='gpt2') | top_p(0.9)",
)


def resources(**more: Any) -> Resources:
    """Return resources with a model under the name large."""
    return Resources(models={"large": (tiny_model(1), tiny_tokenizer())}, **more)


@pytest.mark.parametrize("chain", REFUSED)
def test_anything_else_is_refused(chain: str) -> None:
    """The answer is the same whether the file exists or not."""
    with pytest.raises(ParameterError, match="must be a name that this server was started with"):
        resources().check(Chain(chain))


def test_what_is_named_passes(tmp_path: Path) -> None:
    """Models, tables and files of the operator, and words that name no file."""
    table = NgramTable.train(["the text of a prompt", "one two three"], tiny_tokenizer())
    known = resources(tables={"style": table}, files={"sure": "/data/threshold.json"})
    for chain in (
        "contrastive(amateur='large') | ngram_style(table='style')",
        "router(large='large', head='margin')",
        "ensemble(models=['large'], align='gac')",
        "adadec(threshold='sure')",
        "adadec(threshold=1.5)",
        "best_of(by='likelihood')",
        "mbr(utility='chrf')",
        "attribute({'contains': ['the'], 'length': 6})",
        "cfg(1.5, negative='/etc/passwd')",  # a text, not a file
    ):
        known.check(Chain(chain))
    bound = BatchRun(tiny_model(), tiny_tokenizer(), known).bound(
        Chain("contrastive(amateur='large') | ngram_style(table='style')"), [Prompt(value="a", kind="text")]
    )
    assert len(bound.composite.parts) == 2


def test_a_request_loads_no_model() -> None:
    """Even where the check of names would be passed by."""
    with pytest.raises(UnknownNameError, match="no model of this server named"):
        BatchRun(tiny_model(), tiny_tokenizer(), resources()).bound(
            Chain("contrastive(amateur='small')"), [Prompt(value="a", kind="text")]
        )


def test_the_names_of_the_default_chain_count(tmp_path: Path) -> None:
    """The operator's own chain may name models and files as in run."""
    loaded: list[str] = []

    def load(name: str) -> tuple[Any, Any]:
        loaded.append(name)
        return tiny_model(1), tiny_tokenizer()

    chain = Chain("router(large='owner/large', head='heads/router') | top_p(0.9)")
    known = Resources.load(load, models={"other": "owner/other"}, chain=chain)
    known.check(chain)
    known.check(Chain("contrastive(amateur='other')"))
    assert loaded == ["owner/other", "owner/large"]
    with pytest.raises(ParameterError, match="a file or folder that exists"):
        Resources.load(load, files={"head": str(tmp_path / "absent")})
    with pytest.raises(ParameterError, match="names must be different"):
        resources(files={"large": "x"})


def test_every_parameter_that_may_name_a_file_is_known_here() -> None:
    """A new Spec with such a parameter is refused in requests until its words are listed."""
    listed = {*WORDS, *NAMING_KEYS, ("adadec", "threshold"), ("smc", "log_weight"), ("smc", "predicate")}
    registry = discover(third_party="none")
    specs = [registry.describe(name) for name in registry.names(kind=None)]
    assert {(spec.name, parameter) for spec in specs for parameter in spec.needs_files} == listed
