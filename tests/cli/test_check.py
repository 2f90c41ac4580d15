"""``logitkit check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.registry import laws
from logitkit.registry.laws import MODES
from logitkit.registry.laws.modes import ModeResult
from terminal import on_terminal


def test_a_processor_is_checked_by_name() -> None:
    """A processor that keeps every law ends the command with exit status 0."""
    result = logitkit_command("check", "cfg", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["failures"] == 0


def test_a_class_is_checked_with_its_parameters() -> None:
    """``module:Class(parameters)`` is checked like a name; a broken law gives exit status 1 and its reason."""
    kept = logitkit_command("check", "transformers:TopKLogitsWarper(top_k=5)")
    assert kept.exit_code == 0 and " NO " not in kept.stdout and "no neutral value" in kept.stdout
    table = logitkit_command("check", "transformers:InfNanRemoveLogitsProcessor")
    assert table.exit_code == 1 and "keeps_masked_tokens_masked" in table.stdout
    broken = logitkit_command("check", "transformers:InfNanRemoveLogitsProcessor", "--json")
    data = json.loads(broken.stdout)
    reasons = {law["law"]: law["reason"] for law in data["laws"] if not law["kept"]}
    assert broken.exit_code == 1 and data["failures"] == len(reasons)
    assert reasons["keeps_masked_tokens_masked"] == "an impossible token became possible"
    (law,) = [law for law in data["laws"] if law["law"] == "keeps_masked_tokens_masked"]
    assert law["evidence"]["expected"] == "-inf" and len(law["evidence"]["prefix"]) == 28 and law["cause"]


@pytest.mark.parametrize("columns", [80, 60])
def test_a_failure_is_explained_on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """What the processor was given, the prefix, the token, expected and got, and the usual cause, none of it cut."""
    status, screen = on_terminal(monkeypatch, columns, "check", "transformers:InfNanRemoveLogitsProcessor")
    assert status == 1 and all(len(line) <= columns for line in screen.lines)
    assert screen.lines[:2] == [
        "transformers:InfNanRemoveLogitsProcessor is given",
        "  transformers:InfNanRemoveLogitsProcessor()",
    ]
    start = screen.lines.index("keeps_masked_tokens_masked")
    said = " ".join(" ".join(screen.lines[start:]).split())
    assert said.startswith(
        "keeps_masked_tokens_masked an impossible token became possible row 0, token 0 '!', after 'a"
    )
    assert "score expected -inf, got -3.40282e+38 usual cause: a sum, a mean or nan_to_num" in said


def test_a_factory_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is not installed is imported from the current folder."""
    text = "from transformers import TopPLogitsWarper\n\ndef nucleus(tokenizer):\n    return TopPLogitsWarper(0.9)\n"
    (tmp_path / "not_installed.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert logitkit_command("check", "not_installed:nucleus").exit_code == 0


def test_generation_modes_are_checked_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--modes`` adds a table of generation modes; a class has no example to generate with and is refused."""
    data = json.loads(logitkit_command("check", "top_k", "--modes", "--json").stdout)
    cells = {cell["mode"]: cell for cell in data["modes"]}
    assert data["failures"] == 0 and set(cells) <= set(MODES) and len(set(MODES) - set(cells)) <= 2  # without PEFT
    assert all(cell["right"] for cell in cells.values())
    refused = {"right": False, "refused": "ModeError: a reason"}
    monkeypatch.setattr(laws, "check_modes", lambda _: [ModeResult(**cell | refused) for cell in data["modes"]])
    assert "  refused  " in logitkit_command("check", "top_k", "--modes").stdout
    result = logitkit_command("check", "transformers:LogitNormalization", "--modes")
    assert result.exit_code == 2 and "--modes must be used with a processor's name" in result.stderr
