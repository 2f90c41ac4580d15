"""The command ``compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.diagnostics import compare
from logitkit.processors.cascade import read_labels
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model
from terminal import on_terminal

TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folders of two models of one tokenizer, one of another, and one with an encoder."""
    made = {
        "small": (tiny_model(), tiny_tokenizer()),
        "large": (tiny_model(1), tiny_tokenizer()),
        "foreign": (foreign_model(), foreign_tokenizer()),
        "encoder": (encoder_decoder_model(), tiny_tokenizer()),
    }
    parent = tmp_path_factory.mktemp("models")
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(parent / name)
    return {name: str(parent / name) for name in made}


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_the_summary_and_the_files(folders: dict[str, str], tmp_path: Path) -> None:
    """The terminal, the JSON, the table, the page and the labels come from one comparison."""
    page, table, labels = (tmp_path / name for name in ("page.html", "tokens.csv", "labels.jsonl"))
    words = (folders["small"], folders["large"], TEXT, "another text", "--divergence", 0.6)
    shown = invoke(*words, "--html", page, "--csv", table, "--labels", labels)
    assert shown.exit_code == 0, shown.output
    for said in (
        "small beside large",
        "32 tokens of 2 texts",
        "sure and wrong",
        "The most divergent tokens",
        "Critical",
    ):
        assert said in shown.output
    data = json.loads(invoke(*words, "--json").stdout)
    want = compare(tiny_model(), tiny_tokenizer(), tiny_model(1), [TEXT, "another text"], divergence=0.6)
    assert data["texts"][0]["js_bits"] == pytest.approx(want.texts[0].differences.js_bits.tolist(), abs=1e-4)
    assert data["models"] == ["small", "large"] and data["texts"][1]["labels"] == want.labels(1).labels
    assert page.read_text().startswith("<!doctype html>") and len(table.read_text().splitlines()) == 33
    assert [each.labels for each in read_labels(labels)[1]] == [want.labels(0).labels, want.labels(1).labels]
    back = json.loads(invoke(folders["small"], folders["large"], labels, "--json").stdout)
    assert back["texts"][0]["judged"] == want.labels(0).labels
    other = json.loads(invoke(folders["large"], folders["small"], labels, "--json").stdout)
    assert other["texts"][0]["judged"] is None and other["texts"][0]["answer_ids"] == want.labels(0).answer_ids
    foreign = invoke(folders["foreign"], folders["large"], labels)
    assert foreign.exit_code == 2 and "in the tokens of MODEL" in " ".join(foreign.output.split())


def test_models_of_different_tokenizers_are_compared_over_bytes(folders: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"passage": "né"}\n{"passage": "on the"}\n')
    shown = invoke(folders["small"], folders["foreign"], file, "--field", "passage")
    assert shown.exit_code == 0 and "9 bytes of 2 texts" in shown.output, shown.output
    assert "exact over the tokenizations" in " ".join(shown.output.split())
    refused = invoke(folders["small"], folders["foreign"], TEXT, "--labels", tmp_path / "labels.jsonl")
    assert refused.exit_code == 2 and "--labels needs tokens, got bytes" in " ".join(refused.output.split())


def test_line_ends_are_tokens_of_the_text(folders: dict[str, str], tmp_path: Path) -> None:
    """Those of the file, without the last one."""
    (tmp_path / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    data = json.loads(invoke(folders["small"], folders["large"], tmp_path / "crlf.txt", "--json").stdout)
    want = compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "one\r\ntwo")
    assert data["texts"][0]["js_bits"] == pytest.approx(want.texts[0].differences.js_bits.tolist(), abs=1e-4)


@pytest.mark.parametrize("columns", [80, 60])
def test_the_summary_fits_the_terminal(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """No line is longer than the terminal, no word is cut, and the bar is gone at the end."""
    status, screen = on_terminal(monkeypatch, columns, "compare", folders["small"], folders["large"], TEXT * 20)
    assert status == 0 and max(map(len, screen.lines)) <= columns
    assert not any(line.endswith("…") or "━━━ " in line for line in screen.lines)
    words = set(" ".join(screen.lines).replace("│", " ").split())
    assert words >= {"wrong", "unsure,", "Critical", "Intervals", "blocks", "divergent", "439"}


@pytest.mark.filterwarnings("always::logitkit.errors.NoEffectWarning")
def test_the_same_model_twice_warns(folders: dict[str, str]) -> None:
    shown = invoke(folders["small"], folders["small"], TEXT)
    assert shown.exit_code == 0 and "The models do not differ." in shown.output and "small (2)" in shown.output
    assert "warning: compare: both models are the same" in shown.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("small", "encoder", TEXT), "compare: model must be decoder-only"),
        (("small", "large", "a"), "compare: text 1 must have a token to compare, got 'a'"),
        (("small", "large", " "), "text 1 must be a text that is not empty"),
        (("small", "large", "nowhere.jsonl"), "nowhere.jsonl must be a file of UTF-8 text"),
        (("small", "large", TEXT, "--html", "page.txt"), "--html must be a file *.html, got"),
        (("small", "large", TEXT, "--csv", "/dev/null/a.csv"), "--csv must be in or below a folder"),
        (("small", "large", TEXT, "--measure", "tv"), "--measure"),
        (("small", "large", TEXT, "--beta", "inf"), "beta must be a finite number > 0"),
    ],
)
def test_mistakes_give_one_line(words: tuple[str, ...], message: str, folders: dict[str, str]) -> None:
    shown = invoke(*(folders.get(word, word) for word in words))
    text = " ".join(shown.output.split())
    assert shown.exit_code == 2 and message in text and "Traceback" not in text, text
