"""The command ``train-attribute``, from labelled texts to a chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import logitkit
from logitkit.cli import app
from logitkit.processors import samplers
from logitkit.registry.laws import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and labelled texts: letters a and b, or x and y."""
    path = tmp_path_factory.mktemp("attribute")
    tiny_model().save_pretrained(path / "tiny")
    tiny_tokenizer().save_pretrained(path / "tiny")
    lines = []
    for number, picks in enumerate(torch.randint(0, 2, (24, 6), generator=torch.Generator().manual_seed(1)).tolist()):
        letters = "ab" if number % 2 else "xy"
        text = "".join(letters[pick] for pick in picks)
        lines.append(json.dumps({"answer": text, "good": bool(number % 2), "question": "Which?"}) + "\n")
    (path / "texts.jsonl").write_text("".join(lines))
    return path


def train(folder: Path, out: str, *more: str) -> Any:
    """Run the command in this process."""
    words = [str(folder / "texts.jsonl"), str(folder / out), "--model", str(folder / "tiny"), "--field", "answer"]
    settings = ["--label", "good", "--prompt", "question", "--epochs", "15", "--width", "8", "--positions", "4"]
    return CliRunner().invoke(app, ["train-attribute", *words, *settings, *more])


def test_from_texts_to_a_chain(folder: Path) -> None:
    """The command trains a head that tells held-out texts apart, and a chain prefers the letters of good texts."""
    result = train(folder, "head", "--json")
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert measured["path"] == str(folder / "head") and measured["accuracy"] == 1.0
    assert measured["held_out_loss"] < measured["base_loss"]
    assert sorted(path.name for path in (folder / "head").iterdir()) == ["head.json", "head.safetensors"]
    table = train(folder, "head")
    assert table.exit_code == 0 and f"{measured['held_out_loss']:.4g}" in table.stdout
    chain = f"attribute({{'head': {str(folder / 'head')!r}}}, strength=8.0, top=272)"
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "Which?")
    scores = call.composite(call.prompts.ids, torch.zeros(1, 272))[0]
    a, b, x, y = (float(scores[tiny_tokenizer().convert_tokens_to_ids(letter)]) for letter in "abxy")
    assert min(a, b) > max(x, y) + 1
    call.generate(max_new_tokens=2, do_sample=False)


def test_states_of_another_dtype_train_a_head_too(folder: Path) -> None:
    """The head is trained in 32 bits, and states of 16 bits tell the texts apart as well."""
    result = train(folder, "short", "--json", "--dtype", "bfloat16")
    assert result.exit_code == 0 and json.loads(result.stdout)["accuracy"] == 1.0, result.output
    refused = train(folder, "nowhere", "--device", "toaster")
    assert refused.exit_code == 2 and "device must be a device that torch has" in " ".join(refused.output.split())
    assert not (folder / "nowhere").exists()


def test_an_interrupted_run_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill in the middle of the texts, the states of the first batches are not read again."""
    kept, read = samplers.attribute_texts.HiddenStates, []

    class Interrupted(kept):  # type: ignore[misc,valid-type]
        def __call__(self, **inputs: Any) -> Any:
            if len(read) == 3:
                raise KeyboardInterrupt
            read.append(len(inputs["input_ids"]))
            return super().__call__(**inputs)

    monkeypatch.setattr(samplers.attribute_texts, "HiddenStates", Interrupted)
    assert train(folder, "again", "--batch", "5").exit_code != 0
    assert read == [5, 5, 5]
    other = train(folder, "again", "--batch", "5", "--tokens", "9")
    assert other.exit_code == 2 and "of the same tokens to be resumed" in other.output
    read.clear()
    read.append(0)
    assert train(folder, "again", "--batch", "5", "--json").exit_code == 0
    assert read == [0, 5, 4]
    monkeypatch.undo()
    assert train(folder, "whole", "--batch", "5", "--json").exit_code == 0
    for name in ("head.json", "head.safetensors"):
        assert (folder / "again" / name).read_bytes() == (folder / "whole" / name).read_bytes()
