"""Texts and files of unknown origin: each parser returns a value or raises one error of logitkit, in bounded time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import logitkit
from logitkit.bench.config import runfile
from logitkit.bench.execution import Store
from logitkit.errors import ChainError, FileFormatError, LogitkitError, RunError
from logitkit.models.cache import MANIFEST, read_manifest
from logitkit.processors.alignment import Alignment
from logitkit.processors.cascade import PostHocRule, RouterHead
from logitkit.processors.cascade.label_files import read_labels
from logitkit.processors.ngram import NgramTable

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
FUZZ = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000,
        "cfg(" + "[" * 9_000,
        "cfg(scale=" + "-" * 9_000 + "1)",
        " | ".join(["top_k"] * 4_000),
        "a" * 1_000_000,
        "cfg(scale=" + "9" * 5_000 + ")",
        "cfg(\x00)",
        "cfg('\ud800')\ud800",
        "cfg(**{})",
        "cfg({[]: 1})",
    ],
)
def test_hostile_chains_are_one_short_error(text: str) -> None:
    """Deep, long and broken texts of chains are refused with a message of a few lines."""
    with pytest.raises(LogitkitError) as caught:
        logitkit.chain(text)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "text", [BOMB, "&a [*a]", "[" * 50_000, "a: 2001-99-99", "\x01", "{[1]: 2}", "!!int x", "- !x y"]
)
def test_hostile_yaml_is_one_error(tmp_path: Path, text: str) -> None:
    """Aliases that grow or refer to themselves, deep values and false types are refused, in chains and in runs."""
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises((FileFormatError, ChainError)):
        logitkit.Chain.from_file(file)
    with pytest.raises(RunError):
        runfile.read(file)


def test_a_huge_sweep_is_refused(tmp_path: Path) -> None:
    """A sweep of 10^8 combinations is a mistake with its line, found before a chain is made."""
    values = list(range(100))
    chain = {"chain": "cfg($a)", "sweep": dict.fromkeys("abcd", values)}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"models": ["tiny"], "chains": {"s": chain}, "tasks": ["lambada"]}))
    with pytest.raises(RunError, match="at most 10000 combinations, got 100000000"):
        runfile.read(file)


@FUZZ
@given(st.text() | st.lists(st.sampled_from([*"()[]{}=|,'\"-*.0129 ", "cfg", "top_p", "scale", "\n"])).map("".join))
def test_any_text_is_a_chain_or_an_error(text: str) -> None:
    """The parser of chains raises nothing but errors of logitkit."""
    _is_value_or_error(lambda: logitkit.chain(text))


@FUZZ
@given(DATA)
def test_any_data_is_read_or_an_error(tmp_path: Path, data: object) -> None:
    """Arbitrary data read as a chain, run, manifest, router head or store raises an error of logitkit and no other."""
    text = json.dumps(data)
    for name in ("file.json", "file.yaml", "results.jsonl", "head.json", MANIFEST):
        (tmp_path / name).write_text(text + "\n")
    for read in (
        lambda: logitkit.Chain.from_file(tmp_path / "file.json"),
        lambda: logitkit.Chain.from_file(tmp_path / "file.yaml"),
        lambda: runfile.read(tmp_path / "file.yaml"),
        lambda: read_manifest(tmp_path),
        lambda: read_labels(tmp_path / "file.json"),
        lambda: Store(tmp_path),
    ):
        _is_value_or_error(read)


@FUZZ
@given(st.binary())
def test_any_bytes_are_read_or_an_error(tmp_path: Path, content: bytes) -> None:
    """Every reader of files raises nothing but errors of logitkit on arbitrary bytes."""
    names = ("file.json", "file.yaml", "file.safetensors", "results.jsonl", "head.json", "head.safetensors", MANIFEST)
    for name in names:
        (tmp_path / name).write_bytes(content)
    for read in (
        lambda: logitkit.Chain.from_file(tmp_path / "file.json"),
        lambda: logitkit.Chain.from_file(tmp_path / "file.yaml"),
        lambda: runfile.read(tmp_path / "file.yaml"),
        lambda: NgramTable.load(tmp_path / "file.safetensors"),
        lambda: Alignment.load(tmp_path / "file.safetensors"),
        lambda: RouterHead.load(tmp_path),
        lambda: PostHocRule.load(tmp_path),
        lambda: read_manifest(tmp_path),
        lambda: read_labels(tmp_path / "file.json"),
        lambda: Store(tmp_path),
    ):
        _is_value_or_error(read)


@pytest.mark.parametrize("kind", [RouterHead, PostHocRule])
@pytest.mark.parametrize(
    "config", [None, [], {"width": -1}, {"width": 10**12}, {"width": "x"}, {"other": 1}, {"width": 7}]
)
def test_false_heads_are_one_error(tmp_path: Path, kind: type, config: object) -> None:
    """A head whose metadata has no configuration, or sizes that are false or huge, is refused by name."""
    name = __import__(kind.__module__, fromlist=["KIND"]).KIND
    save_file({"weight": torch.ones(4)}, tmp_path / "head.safetensors")
    (tmp_path / "head.json").write_text(json.dumps({"kind": name, "version": 1, "config": config}))
    with pytest.raises(FileFormatError, match=r"must fit head\.json"):
        kind.load(tmp_path)  # type: ignore[attr-defined]


def _is_value_or_error(read: object) -> None:
    """Call a reader; an error of logitkit is an answer, any other exception fails the test."""
    try:
        read()  # type: ignore[operator]
    except LogitkitError as error:
        assert str(error)
