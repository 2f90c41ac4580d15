"""The command ``bits-per-byte``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.cli import bits_per_byte as command
from logitkit.diagnostics import bits_per_byte
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

TEXT = "the other the. a note on the other.\n" * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the folders of two tiny models with unlike tokenizers."""
    root = tmp_path_factory.mktemp("models")
    pairs = {"bytes": (tiny_model(), tiny_tokenizer()), "words": (foreign_model(), foreign_tokenizer())}
    for name, pair in pairs.items():
        for each in pair:
            each.save_pretrained(root / name)
    return str(root / "bytes"), str(root / "words")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_a_pair_is_compared_on_the_same_blocks(folders: tuple[str, str], file: Path) -> None:
    """Two quantities of two models; the difference to the first stands in its interval."""
    words = ("bits-per-byte", file, "--model", folders[0], "--model", folders[1], "--block", 20)
    data = json.loads(logitkit_command(*words, "--json").stdout)
    models = {folders[0]: (tiny_model(), tiny_tokenizer()), folders[1]: (foreign_model(), foreign_tokenizer())}
    want = bits_per_byte(models, TEXT, block=20)
    assert data["blocks"] == want.blocks and data["bytes"] == len(TEXT)
    assert [(row["model"], row["quantity"]) for row in data["rows"]] == [
        (name, kind) for name in folders for kind in ("tokens", "exact")
    ]
    for row in data["rows"]:
        assert row["bits_per_byte"] == pytest.approx(want.of(row["model"], exact=row["quantity"] == "exact"))
    for row in data["rows"][2:]:
        assert row["low"] < row["difference"] < row["high"]
    shown = logitkit_command(*words, "--tokens-only")
    assert shown.exit_code == 0, shown.output
    assert "exact" not in shown.stdout and "[" in shown.stdout and "bits a chunk" in shown.stderr
    assert f"{len(TEXT)} bytes, windows of at most 504 bytes: 1, blocks: {len(want.blocks)}." in " ".join(
        shown.stderr.split()
    )


def test_line_ends_are_bytes_of_the_text(folders: tuple[str, str], tmp_path: Path) -> None:
    """The text has the bytes of the file, also those of line ends."""
    (tmp_path / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    words = ("bits-per-byte", tmp_path / "crlf.txt", "--model", folders[0], "--json")
    data = json.loads(logitkit_command(*words).stdout)
    want = bits_per_byte({"bytes": (tiny_model(), tiny_tokenizer())}, "one\r\ntwo\r\n")
    assert data["bytes"] == 10 and data["rows"][0]["bits_per_byte"] == pytest.approx(want.of("bytes"))


def test_one_model_and_a_short_text(folders: tuple[str, str], file: Path) -> None:
    """No difference; one block gives no interval, and the command says so."""
    shown = logitkit_command("bits-per-byte", file, "--model", folders[0], "--tokens-only", "--limit", 30)
    assert shown.exit_code == 0 and "exact" not in shown.stdout and "beside" not in shown.stdout.splitlines()[1]
    pair = logitkit_command(
        "bits-per-byte", file, "--model", folders[0], "--model", folders[1], "--tokens-only", "--limit", 30
    )
    assert "no intervals: one block" in pair.stderr


def test_without_the_packages_of_intervals(
    folders: tuple[str, str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_installed", lambda name: False)
    words = ("--model", folders[0], "--model", folders[1], "--tokens-only", "--block", 20)
    shown = logitkit_command("bits-per-byte", file, *words)
    assert shown.exit_code == 0 and "they need the extra [bench]" in shown.stderr and "[" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("TEXT", "--model", "FIRST", "--model", "FIRST"), "--model must be given once for each model"),
        (("/nowhere", "--model", "FIRST"), "must be a file that can be read, got '/nowhere'"),
        (("EMPTY", "--model", "FIRST"), "the text must be a file with a text"),
        (("TEXT", "--model", "FIRST", "--window", "4000", "--tokens-only"), "must fit the context"),
        (("TEXT", "--model", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_gives_one_line(
    words: tuple[str, ...], message: str, folders: tuple[str, str], file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("")
    file.write_text(TEXT * 8)
    names = {"TEXT": str(file), "EMPTY": str(tmp_path / "empty.txt"), "FIRST": folders[0]}
    shown = logitkit_command("bits-per-byte", *(names.get(word, word) for word in words))
    text = " ".join(shown.output.split())
    assert shown.exit_code == 2 and "Traceback" not in text and message in text, text
