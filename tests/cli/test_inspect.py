"""``logitkit inspect``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from command_line import logitkit_command
from fresh import ROOT
from logitkit.cli.inspect import EXAMPLES
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_the_command_replaces_its_own_page(tiny_checkpoint: str, tmp_path: Path) -> None:
    """``--out`` writes a page and replaces a page of an earlier call; ``--text`` alone writes no file."""
    out = tmp_path / "page.html"
    arguments = ["inspect", "Once", "--model", tiny_checkpoint, "--chain", "temperature(0.5)", "--max-new-tokens", "4"]
    for _ in range(2):
        result = logitkit_command(*arguments, "-o", out)
        assert result.exit_code == 0, result.output
    assert out.read_text().count('<details class="token"') == 4
    result = logitkit_command(*arguments, "--text")
    assert result.exit_code == 0 and "Where the chain moved the distribution most" in result.stdout
    assert not Path("inspect.html").exists()


def test_two_chains_and_several_prompts(tiny_checkpoint: str, tmp_path: Path) -> None:
    """``--against`` adds a side, arguments and lines of a file are prompts, ``--csv`` and ``--json`` export."""
    page, table, lines = tmp_path / "page.html", tmp_path / "tokens.csv", tmp_path / "prompts.txt"
    model = ["--model", tiny_checkpoint, "--max-new-tokens", "3"]
    for _ in range(2):  # the second call replaces its own files
        result = logitkit_command(
            *("inspect", "Once", "Twice", "--chain", "top_k(5)", "--against", "", *model),
            *("--csv", table, "-o", page),
        )
        assert result.exit_code == 0, result.output
    assert "2 prompts under 2 chains, 12 tokens" in result.stderr
    assert page.read_text().count('<details class="token"') == 12
    assert len(table.read_text().splitlines()) >= 13
    lines.write_text("Once\u2028upon\n\nTwice\n")
    result = logitkit_command("inspect", "--prompts", lines, *model, "--json")
    assert result.exit_code == 0, result.output
    assert [entry["prompt"] for entry in json.loads(result.stdout)["inspections"]] == [
        "Once\u2028upon",
        "Twice",
    ]
    result = logitkit_command("inspect", "--file", lines, "--file", lines, *model, "--csv", table)
    assert result.exit_code == 0 and "2 prompts under 1 chain, 6 tokens" in result.stderr
    assert not Path("inspect.html").exists()


def test_the_page_names_the_model_and_no_path(tiny_checkpoint: str, tmp_path: Path) -> None:
    """A page can be shown to others: it holds no folder of this machine."""
    page = tmp_path / "page.html"
    logitkit_command("inspect", "Once", "--model", tiny_checkpoint, "--max-new-tokens", "2", "-o", page)
    text = page.read_text()
    assert tiny_checkpoint not in text and f"<dd>{Path(tiny_checkpoint).name}</dd>" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-o", "page.txt"], "inspect: --out must be a file *.html, got 'page.txt'"),
        (["a", "-o", "/dev/null/a.html"], "inspect: --out must be in or below a folder, got '/dev/null/a.html'"),
        (["a", "-o", "FOREIGN"], "inspect: --out must be a new file, or a page that inspect wrote"),
        (["a", "--chain", "cfg(scale=-1)"], "cfg: scale must be a finite number >= 0, got -1"),
        (["a", "--file", "b"], "inspect: the prompt must be given once"),
        ([""], "inspect: the prompt must be text"),
        (["a", ""], "inspect: the prompt must be text"),
        (["a", "--temperature", "0"], "generate: --temperature must be"),
        (["a", "--against", "cfg(scale=-1)"], "cfg: scale must be a finite number >= 0, got -1"),
        (["a", "--prompts", "b"], "inspect: the prompt must be given once, got '--prompts'"),
        (["--file", "a", "--prompts", "b"], "inspect: the prompt must be given once"),
        (["--prompts", "EMPTY"], "inspect: --prompts must be a file with a line of text"),
        (["--prompts", "/no/file"], "inspect: --prompts must be a file that can be read"),
        (["a", "--csv", "FOREIGN"], "inspect: --csv must be a file *.csv, got"),
        (["a", "--csv", "EMPTY"], "inspect: --csv must be a new file, or a table that inspect wrote"),
    ],
)
def test_bad_input_is_refused_before_a_model_loads(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with exit status 2 and one message, and loads no model."""
    monkeypatch.setattr("logitkit.cli.inspect.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "foreign.html").write_text("<p>somebody's page</p>")
    (tmp_path / "empty.csv").write_text("\n")
    places = {"FOREIGN": f"{tmp_path}/foreign.html", "EMPTY": f"{tmp_path}/empty.csv"}
    result = logitkit_command("inspect", *(places.get(a, a) for a in arguments))
    assert result.exit_code == 2 and message in result.output.replace("\n", ""), result.output


def commands() -> list[str]:
    """Return the commands of the documentation and of the help text."""
    text = (ROOT / "docs" / "inspect.md").read_text()
    return [*re.findall("^logitkit inspect .*$", text, re.MULTILINE), *EXAMPLES]


@pytest.mark.parametrize("command", commands())
def test_documented_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, on the tiny model; fewer tokens keep the test short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logitkit.cli.inspect.load_model", lambda *_, **__: (tiny_model(), tiny_tokenizer()))
    Path("prompts.txt").write_text("Once\nTwice\n")
    result = logitkit_command(*shlex.split(command)[1:], "--max-new-tokens", "8")
    assert result.exit_code == 0, result.output
    written = [part for part in shlex.split(command) if part.endswith((".html", ".csv"))]
    assert all(Path(name).stat().st_size > 1000 for name in written)
    assert result.stdout or written
