"""The command ``tokenizer report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.cli.tokenizer import _labels
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the folders of two tokenizers, without models."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name, tokenizer in (("bytes", tiny_tokenizer()), ("words", foreign_tokenizer())):
        tokenizer.save_pretrained(root / name)
    return str(root / "bytes"), str(root / "words")


def test_a_first_run_needs_no_text(folders: tuple[str, str]) -> None:
    """One tokenizer has no column of its name; what to know about the tables is on standard error."""
    shown = logitkit_command("tokenizer", "report", folders[0])
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["text", "bytes", "a", "token", "premium", "bytes", "tokens"] in lines
    assert ["Hindi", "1.00", "2.49", "609", "609"] in lines  # 609 bytes beside 245 of the English sentences
    assert ["Devanagari", "183", "100.0%", "0"] in lines
    assert "Premium: tokens for each token" in shown.stderr and "Premium" not in shown.stdout


def test_a_pair_on_given_texts(folders: tuple[str, str], tmp_path: Path) -> None:
    """The page, and the same as JSON: two tokens for seven bytes."""
    (tmp_path / "note.txt").write_text("the the")
    page = tmp_path / "page.html"
    shown = logitkit_command("tokenizer", "report", *folders, "--text", tmp_path / "note.txt", "--mined", "-o", page)
    assert (shown.exit_code, shown.stdout) == (0, ""), shown.output
    html = page.read_text()
    assert "<title>bytes and words" in html and "mined" in html and "http" not in html.split("<body>")[1]
    data = json.loads(
        logitkit_command("tokenizer", "report", *folders, "--text", tmp_path / "note.txt", "--json").stdout
    )
    note = data["tokenizers"]["words"]["texts"]["note"]
    assert (note["bytes"], note["tokens"], note["lost"], note["premium"]) == (7, 2, 0, None)
    assert [one["crossing"] for one in data["pair"]["crossings"]["note"]] == [5, 0]
    assert [one["method"] for one in data["pair"]["alignments"][0]] == ["exact", "gac"]


def test_translations(folders: tuple[str, str], tmp_path: Path) -> None:
    for name, text in (("en", "a cat\nthe\n"), ("fr", "un chat\nle\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    words = ("--parallel", tmp_path / "en.txt", "--parallel", tmp_path / "fr.txt", "--json")
    data = json.loads(logitkit_command("tokenizer", "report", folders[0], *words).stdout)
    assert data["reference"] == "en" and data["tokenizers"]["bytes"]["texts"]["fr"]["premium"] == 9 / 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "page.pdf"), "--out must be a file *.html, got 'page.pdf'"),
        (("--out", "/dev/null/page.html"), "--out must be in or below a folder"),
        (("--text", "/nowhere"), "--text must be a file that can be read, got '/nowhere'"),
        (("--parallel", "PLACE/en.txt"), "--parallel must be given at least twice"),
        (("--parallel", "PLACE/en.txt", "--parallel", "PLACE/fr.txt"), "translations of the same lines"),
    ],
)
def test_bad_input_gives_one_line(
    words: tuple[str, ...], message: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "en.txt").write_text("a\nb")
    (tmp_path / "fr.txt").write_text("a")
    shown = logitkit_command("tokenizer", "report", folders[0], *(w.replace("PLACE", str(tmp_path)) for w in words))
    text = " ".join(shown.output.split())
    assert shown.exit_code == 2 and "Traceback" not in text and message in text


def test_an_unknown_name_is_named() -> None:
    shown = logitkit_command("tokenizer", "report", "nowhere")
    assert shown.exit_code == 2 and "nowhere" in shown.output


def test_labels_are_short_where_they_differ() -> None:
    assert _labels(["a/x.txt", "b.md"]) == ["x", "b.md"]
    assert _labels(["a/x", "b/x"]) == ["a/x", "b/x"]
    assert _labels(["x", "x"]) == ["x", "x (2)"]
