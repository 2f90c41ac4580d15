"""Prompts and settings of the command line: one clear error for each fault."""

from __future__ import annotations

import io
import sys

import pytest

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
    ("name", "value"), [("temperature", 0.0), ("temperature", float("nan")), ("top_p", 1.5), ("top_k", -1)]
)
def test_settings_are_checked(name: str, value: float) -> None:
    """A sampling parameter out of range is an error that names the option."""
    values = {"temperature": None, "top_k": None, "top_p": None, name: value}
    with pytest.raises(ParameterError, match=f"--{name.replace('_', '-')} must be"):
        generate_settings(max_new_tokens=1, do_sample=False, **values)  # type: ignore[arg-type]
