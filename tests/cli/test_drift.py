"""The command ``drift``."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.registry.laws import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a tiny chat model."""
    path, tokenizer = tmp_path_factory.mktemp("tiny"), copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    tiny_model().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """Return a file with the questions of a conversation."""
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps({"role": "user", "content": f"question {n}"}) + "\n" for n in range(7)))
    return path


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["drift", *map(str, words)])


def test_courses_side_by_side(folder: str, chat: Path, tmp_path: Path) -> None:
    """A column and a fit for each chain, a picture, and the same numbers as JSON."""
    plot = tmp_path / "drift.svg"
    words = (chat, "--goal", "be brief", "--model", folder, "--max-new-tokens", 4, "--remind", 3)
    chains = ("--chain", "", "--chain", "anchor('be brief', threshold=0.0)")
    shown = invoke(*words, *chains, "--plot", plot)
    assert shown.exit_code == 0, shown.output
    assert "restoring force" in shown.output and "effect of a reminder" in shown.output
    assert plot.read_text().count("<polyline") == 2
    data = json.loads(invoke(*words, *chains, "--json").stdout)
    plain, anchored = data["plain"], data["anchor('be brief', threshold=0.0)"]
    assert [turn["reminder"] for turn in plain["turns"]] == [False, False, True, False, False, True, False]
    assert set(plain["fit"]) == {"a", "b", "c"} and len(plain["chat"]) == 14
    assert anchored["fit"] is None  # it stays at 0 up to rounding
    assert max(turn["divergence"] for turn in anchored["turns"]) < 1e-6 < plain["turns"][0]["divergence"]


def test_short_conversations_have_no_fit(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text('{"role": "user", "content": "a"}\n\n{"role": "assistant", "content": "b"}\n')
    shown = invoke(path, "--goal", "be brief", "--model", folder)
    assert shown.exit_code == 0 and "no fit of the course: it needs 5 turns, 6 with reminders" in " ".join(
        shown.output.split()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold a message, got none"),
        ("{", "line 1 of"),
        ('{"role": "user"}', "must be a message with the texts role and content"),
        ('{"role": "robot", "content": "x"}', "must have the role system, user or assistant"),
    ],
)
def test_bad_files_give_one_line(content: str, message: str, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(content)
    shown = invoke(path, "--goal", "be brief", "--model", folder)
    assert shown.exit_code == 2 and message in " ".join(shown.output.split()) and "Traceback" not in shown.output


def test_a_model_without_chats_is_refused(chat: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    shown = invoke(chat, "--goal", "be brief", "--model", tmp_path / "tiny")
    assert shown.exit_code == 2 and "chat template" in " ".join(shown.output.split())
