"""Commands and a study that run on any engine, with tiny models and a few texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

from command_line import logitkit_command
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import context_conflict

TEXTS = ["the cat sat", "on the mat", "a dog", "and another", "ran far away", "a dog"]
COMMANDS = ("label-divergence", "train-attribute", "membership", "context_conflict")


def prepare(folder: Path) -> Path:
    """Write two checkpoints, prompts, labelled texts and questions into a folder."""
    for seed, name in enumerate(("small", "large")):
        tiny_model(seed).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    (folder / "prompts.txt").write_text("\n".join(TEXTS[:4]) + "\n")
    lines = [json.dumps({"text": text, "label": number % 2}) for number, text in enumerate(TEXTS)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    questions = [
        {"question": f"Who is {name}?", "golden_answers": [answer]}
        for name, answer in (("Emma", "Austen"), ("Mars", "war"), ("Jim", "Conrad"))
    ]
    (folder / "triviaqa_subsample.jsonl").write_text("\n".join(map(json.dumps, questions)))
    return folder


def run(command: str, folder: Path, out: Path, engine: str, capsys: Any = None) -> str:
    """Run a command or the study, and return what it prints; its files are in ``out``."""
    out.mkdir(exist_ok=True)
    if command == "context_conflict":
        model = str(folder / "small")
        with mock.patch.object(context_conflict, "table", lambda answers, items: sorted(map(str, answers.items()))):
            context_conflict.main(data=folder, model=model, items=2, batch=1, out=out / "conflict.jsonl", engine=engine)
        return str(capsys.readouterr().out) if capsys else ""
    models: dict[str, list[object]] = {
        "label-divergence": ["--small", folder / "small", "--large", folder / "large"],
        "train-attribute": ["--model", folder / "small"],
        "membership": ["--model", folder / "small", "--reference", folder / "prompts.txt"],
    }
    words: dict[str, list[object]] = {
        "label-divergence": [folder / "prompts.txt", out / "labels.jsonl", "--tokens", 4, "--batch", 2],
        "train-attribute": [folder / "texts.jsonl", out / "head", "--epochs", 2, "--width", 4, "--batch", 2],
        "membership": [folder / "texts.jsonl", "--out", out / "scores.jsonl"],
    }
    result = logitkit_command(command, *words[command], *models[command], "--engine", engine, "--json")
    if isinstance(result.exception, KeyboardInterrupt):
        raise result.exception
    assert result.exit_code in (0, 130), result.output
    return str(result.stdout).replace(str(out), "OUT")


def written(out: Path) -> dict[str, list[bytes]]:
    """Return the lines of every file below a folder; those of files that any engine may order are sorted."""
    lines = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            found = path.read_bytes().splitlines()
            free = path.name in ("scores.jsonl", "conflict.jsonl")
            lines[path.relative_to(out).as_posix()] = sorted(found) if free else found
    return lines
