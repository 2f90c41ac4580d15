"""Prompts and settings of the command line: one clear error for each fault."""

from __future__ import annotations

import io
import sys

import pytest

import logitkit
from command_line import logitkit_command
from logitkit.cli.inputs import generate_settings, read_prompt
from logitkit.errors import ParameterError


def test_standard_input_must_be_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not UTF-8 are an error that names standard input; UTF-8 is read whatever the locale is."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    with pytest.raises(ParameterError, match=r"run: standard input must be UTF-8 text .* at byte 3"):
        read_prompt("run", None, None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("café".encode()), encoding="ascii"))
    assert read_prompt("run", None, None) == "café"


def test_lone_surrogates_are_refused() -> None:
    """An argument that was no UTF-8 reaches Python as lone surrogates and is refused."""
    with pytest.raises(ParameterError, match="the prompt must be valid Unicode"):
        read_prompt("run", "caf\udce9", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", 1e-320),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
    ],
)
def test_settings_are_checked(name: str, value: float) -> None:
    """A sampling parameter out of range is an error that names the option."""
    values = {"temperature": None, "top_k": None, "top_p": None, name: value}
    with pytest.raises(ParameterError, match=f"--{name.replace('_', '-')} must be"):
        generate_settings(max_new_tokens=1, do_sample=False, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", ["-1", str(10**30)])
def test_seeds_fit_the_generator(seed: str) -> None:
    """A seed that the random generator does not take is refused by its option."""
    result = logitkit_command("run", "hi", "--model", "no-model", "--seed", seed)
    assert result.exit_code == 2 and "run: --seed must be a number >= 0 and <=" in result.output


def test_numbers_of_a_chain_fit_float32() -> None:
    """A factor that would make every score infinite is refused before a model runs."""
    with pytest.raises(ParameterError, match="cfg: scale must be a number of float32"):
        logitkit.chain("cfg(1e308)")
