"""The command ``membership``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.diagnostics import token_statistics
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXTS = ["the cat sat", "on the mat", "a dog", "and another"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a tiny model."""
    path = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["membership", *map(str, words)])


def written(path: Path, *, labels: bool = True) -> Path:
    """Write the texts as JSON lines."""
    lines = [{"text": text} | ({"label": number % 2} if labels else {}) for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_labelled_texts_give_areas(folder: str, tmp_path: Path) -> None:
    """The areas are those of the scores that the same command prints as JSON."""
    file, book = written(tmp_path / "texts.jsonl"), tmp_path / "book.txt"
    book.write_text("the cat and the dog")
    words = (file, "--model", folder, "--reference", book)
    shown, data = invoke(*words), json.loads(invoke(*words, "--json").stdout)
    assert shown.exit_code == 0, shown.output
    scores = [text["log_likelihood"] for text in data["texts"]]
    assert [text["member"] for text in data["texts"]] == [False, True, False, True]
    assert data["areas"]["log_likelihood"]["value"] == sum(scores[m] > scores[o] for m in (1, 3) for o in (0, 2)) / 4
    for name in ("log-likelihood", "min-k %", "min-k %++", "DC-PDD"):
        assert name in shown.output
    for text, score in zip(TEXTS, scores, strict=True):
        assert score == pytest.approx(float(token_statistics(tiny_model(), tiny_tokenizer(), text).logp.mean()))


def test_texts_without_labels_give_scores(folder: str, tmp_path: Path) -> None:
    shown = invoke(written(tmp_path / "texts.jsonl", labels=False), "--model", folder)
    assert shown.exit_code == 0 and "min-k %++" in shown.output and "curve" not in shown.output
    assert "DC-PDD" not in shown.output


def test_an_interrupted_run_continues(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts with a score of the same settings are not read again, also behind a line that was left incomplete."""
    file, out = written(tmp_path / "texts.jsonl"), tmp_path / "scores.jsonl"
    read: list[str] = []

    def counted(model: Any, tokenizer: Any, text: str, **settings: Any) -> Any:
        read.append(text)
        return token_statistics(model, tokenizer, text, **settings)

    monkeypatch.setattr("logitkit.diagnostics.token_statistics", counted)
    words = (file, "--model", folder, "--out", out, "--json")
    first = invoke(*words)
    assert read == TEXTS
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:2]) + '\n{"key": "unfin')
    assert json.loads(invoke(*words).stdout) == json.loads(first.stdout) and read[4:] == TEXTS[2:]
    assert json.loads(invoke(*words).stdout) == json.loads(first.stdout) and len(read) == 6
    invoke(*words, "--share", 0.5)
    assert len(read) == 10


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"text": "a"}', (), "text 1 of .* must have at least two tokens"),
        ('{"text": "a b"}', ("--reference", "/nowhere"), "--reference must be a file that can be read"),
        ('{"other": "a b"}', (), "with a text 'text'"),
    ],
)
def test_bad_input_gives_one_line(
    content: str, options: tuple[str, ...], message: str, folder: str, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    shown = invoke(path, "--model", folder, *options)
    text = " ".join(shown.output.split())
    assert shown.exit_code == 2 and "Traceback" not in text
    assert re.search(message, text), text


def test_a_missing_file_is_named(folder: str) -> None:
    shown = invoke("/nowhere.jsonl", "--model", folder)
    assert shown.exit_code == 2 and "nowhere" in shown.output and "Traceback" not in shown.output
