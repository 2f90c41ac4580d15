"""``logitkit bench speed``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.bench.speed import profile, random_models, static_cache, variants
from logitkit.processors.contrast import CFG
from logitkit.registry import discover
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_tables_are_printed_and_written(tiny_checkpoint: str, tmp_path: Path) -> None:
    """Each batch size gets a table of plain decoding and the chosen variants; ``--out`` holds the printed text."""
    out = tmp_path / "speed.md"
    settings = ["--model", tiny_checkpoint, "--tokens", "2", "--rounds", "1", "--batch", "1", "--batch", "2"]
    result = logitkit_command("bench", "speed", *settings, "--only", "cfg", "--no-processors", "--out", out)
    assert result.exit_code == 0 and out.read_text() == result.stdout
    assert result.stdout.count("| plain generate | 1.000 | 1.000 |") == 2 and "| cfg(1.5), fused |" in result.stdout


def test_a_processor_without_a_variant_is_measured_by_its_example(
    tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--only NAME`` measures the example of the Spec beside plain decoding, and profiles this processor alone."""
    monkeypatch.setattr(profile, "VOCABULARIES", (300,))
    monkeypatch.setattr(profile, "BATCHES", (1,))
    settings = ["--model", tiny_checkpoint, "--tokens", "2", "--rounds", "1", "--batch", "1", "--no-memory"]
    result = logitkit_command("bench", "speed", *settings, "--only", "top_k")
    names = [line.split(" | ")[0].strip("| ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert result.exit_code == 0 and {"top_k", "top_k(5)"} < set(names) and "top_p" not in names


def test_the_whole_command_with_its_defaults(
    tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variant at both batch sizes, every processor in four tables; ``--out`` holds all that is printed."""
    monkeypatch.setattr(profile, "VOCABULARIES", (300, 301))  # the time of the whole is that of wide scores
    out = tmp_path / "speed.md"
    arguments = ["--model", tiny_checkpoint, "--tokens", "2", "--rounds", "1", "--out", out]
    result = logitkit_command("bench", "speed", *arguments)
    assert result.exit_code == 0, result.output
    assert out.read_text() == result.stdout and "not measured" not in result.output
    first, second, *tables = result.stdout.split("\n\n")
    assert first == f"`logitkit bench speed --model {tiny_checkpoint} --tokens 2 --rounds 1`"
    assert second.startswith("logitkit 0.") and " 1 rounds; 20" in second
    assert [table.count("\n") - 1 for table in tables[:2]] == [len(variants())] * 2
    assert [table.splitlines()[0].split(" | ")[0] for table in tables[2:]] == [
        f"| vocabulary {vocab}, batch {batch}" for vocab in (300, 301) for batch in (1, 16)
    ]
    assert all(
        f"| {name} |" in tables[2].replace(", vocabulary 257", "") for name in discover(third_party="none").names()
    )


def test_static_columns_and_json(tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--json`` prints the same figures as data, and ``--out`` holds the tables all the same."""
    monkeypatch.setattr(static_cache, "BACKEND", "eager")
    out = tmp_path / "speed.md"
    settings = ["--model", tiny_checkpoint, "--tokens", "2", "--rounds", "1", "--batch", "1", "--only", "identity"]
    flags = ["--static", "--no-processors", "--no-memory", "--json", "--out", out]
    result = logitkit_command("bench", "speed", *settings, *flags)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["command"].endswith("--only identity --static --no-processors --no-memory")
    (table,) = data["variants"]
    plain, identity = table["rows"]
    assert (table["batch"], table["tokens"], plain["ratio"], plain["static"]["ratio"]) == (1, 2, 1.0, 1.0)
    assert f"| identity chain | {identity['ratio']:.3f} |" in out.read_text()
    assert {"torch", "transformers"} < set(data["environment"]["versions"])


def test_what_cannot_be_measured_is_a_failure(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rows are printed, the error is named, and the exit status is 1."""
    monkeypatch.setattr(profile, "VOCABULARIES", (300,))
    monkeypatch.setattr(CFG, "__call__", lambda *_: {}["no such key"])
    settings = ["--model", tiny_checkpoint, "--tokens", "2", "--rounds", "1", "--batch", "1", "--no-memory"]
    result = logitkit_command("bench", "speed", *settings, "--only", "cfg", "--only", "top_k")
    assert result.exit_code == 1 and "| top_k | 0." in result.stdout
    assert "not measured: cfg: KeyError: 'no such key'" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "8192"], "bench speed: --tokens must be at most 8"),
        (["--only", "zz"], "no decoding variant named 'zz'"),
        (["--device", "nowhere"], "bench: device must be a device that torch has on this machine, got 'nowhere'"),
        (["--dtype", "int4"], "bench: dtype must be float32, bfloat16 or float16, got 'int4'"),
        (["--model", "zz"], "no model named 'zz'"),
        (["--out", "/dev/null/x.md"], "bench speed: --out must be in or below a folder, got '/dev/null/x.md'"),
    ],
)
def test_wrong_arguments_are_refused_before_measuring(arguments: list[str], message: str) -> None:
    """The command ends with exit status 2 and one message."""
    result = logitkit_command("bench", "speed", *arguments)
    assert result.exit_code == 2 and message in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", discover(third_party="none").names())
def test_every_processor_is_measured_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``bench speed --only NAME`` works for every processor with the prompts and settings of the command."""
    monkeypatch.setattr(random_models, "load", lambda *_, **__: (tiny_model(), tiny_tokenizer()))
    settings = ["--tokens", "4", "--rounds", "1", "--batch", "2", "--no-memory", "--no-processors"]
    result = logitkit_command("bench", "speed", *settings, "--only", name)
    assert result.exit_code == 0 and len([line for line in result.stdout.splitlines() if name in line]) >= 1, (
        result.output
    )
