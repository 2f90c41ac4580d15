"""``logitkit train-adadec``: from reference solutions to a chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import logitkit_command
from logitkit.processors.searches import EntropyThreshold
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.reference_entropies import reference_entropies

LETTERS = tiny_tokenizer()("abcdefghijklmnopqrstuvwxyz")["input_ids"]
STEPS = f"suppress_tokens({[token for token in range(272) if token not in LETTERS]})"
LOW = 2.5  # nats; the entropies of the letters lie around it


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solutions in which the likeliest letter stands where the entropy is low, and the second one where it is high."""
    path, lines = tmp_path_factory.mktemp("references") / "problems.jsonl", []
    for prompt in ("one prompt", "a second one", "x", "def f(y):"):
        ids = tiny_tokenizer()(prompt)["input_ids"]
        start = len(ids)
        for _ in range(24):
            with torch.no_grad():
                logp = tiny_model()(torch.tensor([ids])).logits[0, -1, LETTERS].log_softmax(-1)
            order = logp.argsort(descending=True)
            ids.append(LETTERS[order[0 if float(-(logp.exp() * logp).sum()) < LOW else 1]])
        lines.append({"question": prompt, "answer": tiny_tokenizer().decode(ids[start:])})
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_from_references_to_a_chain(references: Path, tiny_checkpoint: str, tmp_path: Path) -> None:
    """The file holds what the functions fit to the same tokens, and ``run`` takes it."""
    out = tmp_path / "threshold.json"
    fields = ["--prompt-field", "question", "--solution-field", "answer"]
    command = ["train-adadec", references, out, "--model", tiny_checkpoint, *fields]
    result = logitkit_command(*command, "--items", 3, "--seed", 2, "--chain", STEPS, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in references.read_text().split("\n\n")][:3]
    pairs = [
        reference_entropies(Chain(STEPS), tiny_model(), tiny_tokenizer(), one["question"], one["answer"])
        for one in lines
    ]
    entropy, right = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    assert 0 < int(right.sum()) < len(right)
    fitted = EntropyThreshold.load(out)
    chain = str(Chain(STEPS))
    want = EntropyThreshold.fit(entropy, right, model=fitted.model, chain=chain, seed=2)
    assert fitted.nats == pytest.approx(want.nats, abs=1e-4) and fitted.chain == chain
    printed = json.loads(result.stdout)
    assert printed == {"path": str(out)} | {
        name: getattr(fitted, name) for name in ("nats", "accuracy", "above", "right", "tokens")
    }
    assert fitted.nats == pytest.approx(LOW, abs=0.3) and fitted.accuracy > 0.9
    table = logitkit_command(*command, "--chain", STEPS)
    assert table.exit_code == 0 and "threshold, nats" in table.stdout and f"adadec({str(out)!r})" in table.stderr
    run = ["run", "ab", "--model", tiny_checkpoint, "--chain", f"adadec({str(out)!r})", "--max-new-tokens", 3, "--json"]
    result = logitkit_command(*run)
    assert result.exit_code == 0 and json.loads(result.stdout)["trace"]["search"]["search"] == "adadec", result.output


@pytest.mark.parametrize(
    ("content", "words", "status"),
    [
        ('{"prompt": "a", "canonical_solution": "b"}\n{"prompt": "a"}\n', "line 2 is not; see --prompt-field", 2),
        ('{"prompt": "a", "canonical_solution": ""}\n', "line 1 is not", 2),
        ("[1]\n", "line 1 is not", 2),
        ("not json\n", "line 1 is not", 2),
        ("\n", "must hold a line with a prompt and a solution, got none", 2),
        ('{"prompt": "a", "canonical_solution": "b"}\n', "the references must hold tokens that", 1),
    ],
)
def test_unusable_references(content: str, words: str, status: int, tiny_checkpoint: str, tmp_path: Path) -> None:
    """One line names the fault; nothing is written."""
    path, out = tmp_path / "problems.jsonl", tmp_path / "threshold.json"
    path.write_text(content)
    result = logitkit_command("train-adadec", path, out, "--model", tiny_checkpoint)
    assert result.exit_code == status and result.stderr.startswith("error: ") and not out.exists()
    assert words in " ".join(result.stderr.split())


def test_a_search_is_refused(references: Path, tiny_checkpoint: str, tmp_path: Path) -> None:
    fields = ["--prompt-field", "question", "--solution-field", "answer", "--chain", "goose()"]
    result = logitkit_command("train-adadec", references, tmp_path / "t.json", "--model", tiny_checkpoint, *fields)
    assert result.exit_code == 2 and "train-adadec: goose must be left out" in result.stderr
