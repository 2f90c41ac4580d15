"""``logitkit run``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import logitkit
from command_line import logitkit_command
from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PYTHON_PROMPT = 'def f(x):\n    """Add one.\n\n    >>> f(1)\n    2\n    """\n'


def test_more_tokens_than_the_model_reads_are_one_error(tiny_checkpoint: str) -> None:
    """Before anything is generated; a number beyond all models is refused before the model is loaded."""
    for command in ("run", "inspect"):
        result = logitkit_command(command, "Once", "--model", tiny_checkpoint, "--max-new-tokens", "600")
        message = "generate: max_new_tokens must be at most 508, since the model reads 512 tokens and the prompt has 4"
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
        result = logitkit_command(command, "Once", "--model", "zz", "--max-new-tokens", 10**12)
        assert result.exit_code == 2 and "1000000" in " ".join(result.stderr.split()), result.output


def test_the_continuation_is_printed(tiny_checkpoint: str) -> None:
    """The command prints the text that `logitkit.generate` returns."""
    settings = ["--model", tiny_checkpoint, "--chain", "cfg(2.0)", "--max-new-tokens", "8"]
    result = logitkit_command("run", "Once", *settings)
    assert result.exit_code == 0, result.output
    expected = logitkit.generate(tiny_model(), tiny_tokenizer(), "Once", chain="cfg(2.0)", max_new_tokens=8).texts[0]
    assert expected in result.stdout


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_the_prompt_comes_from_argument_file_or_standard_input(
    tiny_checkpoint: str, source: str, tmp_path: Path
) -> None:
    """Each source gives the same prompt; ``--json`` prints the text, the cost and the trace."""
    (tmp_path / "prompt.txt").write_text(PYTHON_PROMPT)
    sources = {"argument": [PYTHON_PROMPT], "file": ["--file", str(tmp_path / "prompt.txt")], "stdin": []}
    settings = ["--model", tiny_checkpoint, "--chain", "uscd(gate=1.0)", "--max-new-tokens", "4", "--trace", "--json"]
    standard_input = PYTHON_PROMPT if source == "stdin" else None
    result = logitkit_command("run", *sources[source], *settings, input=standard_input)
    data = json.loads(result.stdout)
    assert data["tokens"] == 4 and data["forwards_per_token"] == 1.0
    assert data["trace"]["fusion"]["state"] == "fused"
    assert data["trace"]["fired"] == {"uscd": 1.0} and len(data["trace"]["steps"]) == 4
    assert "lacks 1 piece" in data["trace"]["notices"][0]


def test_a_chain_file_runs_with_beams_and_with_sampling(tiny_checkpoint: str, tmp_path: Path) -> None:
    """``--chain`` accepts a YAML file, together with beam search and with each sampling option."""
    chain = tmp_path / "chain.yaml"
    chain.write_text("- name: cfg\n  params: {scale: 2.0}\n")
    settings = ["--model", tiny_checkpoint, "--chain", str(chain), "--max-new-tokens", "4", "--json"]
    for more in (["--num-beams", "2"], ["--temperature", "0.7", "--top-p", "0.9", "--seed", "3"]):
        result = logitkit_command("run", "Once", *settings, *more)
        assert result.exit_code == 0 and json.loads(result.stdout)["chain"] == "cfg(scale=2.0)", result.output


def test_trace_prints_the_largest_divergences(tiny_checkpoint: str) -> None:
    """``--trace`` prints a table with the Jensen-Shannon divergence of the steps."""
    settings = ["--model", tiny_checkpoint, "--chain", "cfg(2.0)", "--max-new-tokens", "4", "--trace"]
    assert "JS, bits" in logitkit_command("run", "Once", *settings).output


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_device_and_dtype_are_chosen(tiny_checkpoint: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is loaded with both; an unknown dtype and an absent device are refused before it is loaded."""
    seen: list[tuple[object, str]] = []
    load = models.load

    def watched(name: str, *, like: Any) -> Any:
        seen.append((like.dtype, str(like.device)))
        return load(name, like=like)

    monkeypatch.setattr(models, "load", watched)
    settings = [command, "Once", "--model", tiny_checkpoint, "--max-new-tokens", "2"]
    more = ["--text"] if command == "inspect" else []
    result = logitkit_command(*settings, *more, "--device", "cpu", "--dtype", "bfloat16")
    assert result.exit_code == 0 and seen == [(torch.bfloat16, "cpu")], result.output
    for option, value in (("--dtype", "int4"), ("--device", "nowhere")):
        refused = logitkit_command(*settings, *more, option, value)
        assert refused.exit_code == 2 and f"{command}: {option[2:]} must be" in refused.stderr and len(seen) == 1


def test_the_cost_of_a_search_is_shown(tiny_checkpoint: str) -> None:
    """Forwards, tokens, rows and the memory of KV caches, and as JSON the whole report."""
    settings = ["run", "Once", "--model", tiny_checkpoint, "--chain", "smc(3)", "--max-new-tokens", "4"]
    shown = logitkit_command(*settings)
    assert shown.exit_code == 0, shown.output
    assert re.search(r"smc: \d forwards, \d+ tokens read, 3 rows at once, 0\.\d MB of KV cache", shown.stderr)
    report = json.loads(logitkit_command(*settings, "--json").stdout)["trace"]["search"]
    assert report["peak_cache_bytes"] > 0 and report["peak_device_bytes"] is None
