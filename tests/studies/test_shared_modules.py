"""The modules that studies share: examples of their docstrings, records that are resumed, and tables of results."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import studies
from logitkit import models
from logitkit.errors import FileFormatError
from studies import byte_quality, ensemble_generation, ensemble_quality, intervals, tables
from studies.records import append_record, resumed_records


@pytest.mark.parametrize("module", [intervals, tables])
def test_examples_run(module: object) -> None:
    """The examples in the docstrings of a shared module give the output that they show."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_models_that_a_study_loads_by_default_are_known() -> None:
    """A model of another place has no default, so that no command fails with its default settings."""
    found = set()
    for module in pkgutil.iter_modules(studies.__path__, "studies."):
        main = getattr(importlib.import_module(module.name), "main", None)
        for name, parameter in inspect.signature(main).parameters.items() if main else ():
            if name in ("model", "large", "small", "main", "helper", "other") and parameter.default:
                found.add(parameter.default)
    found.discard(inspect.Parameter.empty)
    assert found and found <= set(models.names())


def test_records_are_resumed_under_the_same_settings_only(tmp_path: Path) -> None:
    """A file of records is read back under its own settings, and refused under other settings."""
    file = tmp_path / "new" / "records.jsonl"
    assert resumed_records(file, {"seed": 0}, "study") == [] == resumed_records(None, {"seed": 0}, "study")
    append_record(file, {"settings": {"seed": 0}, "item": 1})
    append_record(None, {"item": 2})
    assert [record["item"] for record in resumed_records(file, {"seed": 0}, "study")] == [1]
    with pytest.raises(FileFormatError, match=r"study: .* must be a file of \{'seed': 1\}, got one of \{'seed': 0\}"):
        resumed_records(file, {"seed": 1}, "study")


def test_the_table_of_ensembles_is_paired_with_the_main_model() -> None:
    """Differences are those to the first label, and an impossible answer is counted instead of averaged."""
    records = []
    for right, logp in ((True, -1.0), (False, None)):
        main = {"greedy": [right], "logp": [-2.0]}
        ensemble = {"greedy": [True], "logp": [logp]}
        noisy = {"greedy": [right], "logp": [-2.0]}
        answers = {"main alone": main, "core gac": ensemble, "core gac, 5 % noise": noisy}
        answers |= {f"core gac, {noise} % noise": noisy for noise in (10, 20)}
        records.append({"right": 0, "bytes": [4], "answers": answers})
    text = ensemble_quality.table(records, "lambada")
    assert "| main alone | 50.0 [0.0, 100.0] | +0.0 [+0.0, +0.0] | 2.000 [2.000, 2.000] |" in text
    assert "| core gac | 100.0 [100.0, 100.0] | +50.0 [+0.0, +100.0] | inf on 1 items |  |" in text
    assert "| core gac | -50.0 [-100.0, +0.0] |" in ensemble_quality.noise_table(records)


def test_the_table_of_answers_leaves_out_incomplete_questions() -> None:
    """Only questions that every method has answered count."""
    answers = {("a", 0): True, ("b", 0): False, ("a", 1): True}
    text = ensemble_generation.table(["a", "b"], [0, 1], answers)
    assert "TriviaQA, 1 questions" in text and "| b | 0.0 [0.0, 0.0] | -100.0 [-100.0, -100.0] |" in text
    assert ensemble_generation.matches(" The Nile.\nand more", ["nile"])


def test_the_report_of_cuts_counts_failed_healing_as_wrong() -> None:
    """A cut at which token healing fails counts as wrong, and methods without a loss show a dash."""
    losses = dict.fromkeys(byte_quality.METHODS, 1.0)
    del losses["transformers token_healing"]
    hits = dict.fromkeys(byte_quality.METHODS, True)
    cuts = [
        {"kind": "code", "hits": hits, "losses": losses},
        {"kind": "code", "hits": hits | {"transformers token_healing": None}, "losses": losses},
    ]
    text = byte_quality.report(cuts, "code", "a model")
    assert "| transformers token_healing | 0.500 [0.000, 1.000] | - |" in text
    assert "byte_boundary - hard mask: 0.000 [0.000, 0.000] bits per cut" in text
