"""Labels of divergence: by hand on table-like models, judges, resuming, the command line, and training from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import logitkit
from logitkit.cli import app
from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade import labelling as divergence
from logitkit.processors.cascade.labelling import Pair, SameAnswer, SameText, label_divergence, read_labels
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three"]
PAIR: dict[str, Any] = {"small": tiny_model(), "large": tiny_model(1), "tokenizer": tiny_tokenizer()}


def pair(small: str, large: str, before: str = "") -> Pair:
    """Two continuations."""
    return Pair(prompt="?", before=before, small=small, large=large)


@pytest.mark.parametrize(
    ("judge", "small", "large", "divergent"),
    [
        (SameAnswer(), "so it is 1,200.", "that makes 1200", False),
        (SameAnswer(), "so it is 12", "that makes 13", True),
        (SameAnswer(), "The  cat.", "the cat", False),
        (SameAnswer(), "The cat", "A dog", True),
        (SameAnswer(r"answer: (\w+)"), "9 answer: B", "8 answer: B", False),
        (SameText(), " the cat", "the cat ", False),
        (SameText(), "the Cat", "the cat", True),
    ],
)
def test_judges_by_hand(judge: Any, small: str, large: str, divergent: bool) -> None:
    """Final answers, normalised; or the texts themselves."""
    assert judge(pair(small, large)) is divergent


def test_a_model_judges() -> None:
    """It sees both continuations, and its likelier word decides."""
    seen: list[str] = []

    class Judge:
        config, generation_config, device = tiny_model().config, tiny_model().generation_config, tiny_model().device

        def __call__(self, ids: Any) -> Any:
            seen.append(tiny_tokenizer().decode(ids[0]))
            logits = torch.zeros(1, 1, 272)
            logits[..., tiny_tokenizer()("n")["input_ids"][0]] = 1.0 if "First: dog" in seen[-1] else -1.0
            return type("Output", (), {"logits": logits})

    judge = divergence.ModelJudge(Judge(), tiny_tokenizer())
    assert judge(pair("dog", "cat")) and not judge(pair("cat", "cat"))
    assert "Second: cat" in seen[0]


def slow_labels(prompt: str, judge: Callable[[Pair], bool], tokens: int) -> list[int]:
    """Every token alone: the small model's choice, and the large model's way on from it, read from scratch."""

    def greedy(model: Any, ids: list[int], count: int) -> list[int]:
        out: list[int] = []
        with torch.no_grad():
            while len(out) < count and (not out or out[-1] != 257):
                out.append(int(model(torch.tensor([ids + out])).logits[0, -1].argmax()))
        return out

    def text(ids: list[int]) -> str:
        return str(tiny_tokenizer().decode(ids, skip_special_tokens=True))

    head = tiny_tokenizer()(prompt)["input_ids"]
    answer, labels = greedy(tiny_model(1), head, tokens), []
    for place in range(len(answer)):
        (own,) = greedy(tiny_model(), head + answer[:place], 1)
        if own == answer[place]:
            labels.append(divergence.IDENTICAL)
            continue
        left = tokens - place - 1
        rest = [] if own == 257 else greedy(tiny_model(1), head + answer[:place] + [own], left) if left else []
        two = Pair(prompt=prompt, before=text(answer[:place]), small=text([own, *rest]), large=text(answer[place:]))
        labels.append(divergence.DIVERGENT if judge(two) else divergence.NEUTRAL)
    return labels


def ends_alike(two: Pair) -> bool:
    """A judge that finds both kinds among random texts: divergent where the last letters are of another parity."""
    return (ord(two.small[-1:] or "a") - ord(two.large[-1:] or "a")) % 2 == 1


def test_labels_equal_recomputation(tmp_path: Path) -> None:
    """Batched continuations with left padding against one token at a time."""
    found = label_divergence(PROMPTS, tmp_path / "labels.jsonl", **PAIR, judge=ends_alike, tokens=8, batch=3)
    assert [one.labels for one in found] == [slow_labels(prompt, ends_alike, 8) for prompt in PROMPTS]
    assert {label for one in found for label in one.labels} >= {divergence.NEUTRAL, divergence.DIVERGENT}


def test_a_model_against_itself_is_identical(tmp_path: Path) -> None:
    """No mismatch, no continuation."""
    same = PAIR | {"large": tiny_model()}
    (found,) = label_divergence(PROMPTS[:1], tmp_path / "labels.jsonl", **same, tokens=6)
    assert set(found.labels) == {divergence.IDENTICAL}


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """A line that was cut off is done again; what is there is not; the file ends the same."""
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    label_divergence(PROMPTS, whole, **PAIR, tokens=6)
    cut.write_text("".join(whole.read_text().splitlines(keepends=True)[:2]) + '{"prompt": 1, "la')
    advanced: list[int] = []
    label_divergence(PROMPTS, cut, **PAIR, tokens=6, advance=lambda: advanced.append(1))
    assert cut.read_text() == whole.read_text() and len(advanced) == 3
    assert [one.prompt for one in read_labels(cut)[1]] == [0, 1, 2]


def test_another_run_does_not_go_on(tmp_path: Path) -> None:
    """Other models, settings or prompts: refused by name, the file left alone."""
    out = tmp_path / "labels.jsonl"
    label_divergence(PROMPTS, out, **PAIR, tokens=4)
    before = out.read_text()
    with pytest.raises(FileFormatError, match="made with the same tokens"):
        label_divergence(PROMPTS, out, **PAIR, tokens=5)
    with pytest.raises(FileFormatError, match="made with the same pair"):
        label_divergence(PROMPTS, out, **PAIR | {"large": tiny_model(2)}, tokens=4)
    with pytest.raises(FileFormatError, match=r"labels of these prompts to go on, got others \(prompt 0\)"):
        label_divergence(["else", *PROMPTS[1:]], out, **PAIR, tokens=4)
    with pytest.raises(ParameterError, match="prompts must be at least one"):
        label_divergence([], out, **PAIR)
    assert out.read_text() == before
    (tmp_path / "junk").write_text("hello\n")
    with pytest.raises(FileFormatError, match="must be a file of labels"):
        read_labels(tmp_path / "junk")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Checkpoints of the tiny pair."""
    path = tmp_path_factory.mktemp("pair")
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(path / str(seed))
        tiny_tokenizer().save_pretrained(path / str(seed))
    return [str(path / "0"), str(path / "1")]


def run(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


def test_from_prompts_to_a_router(folders: list[str], tmp_path: Path) -> None:
    """label-divergence, train-router, and a chain that uses the head."""
    prompts, labels, head = (tmp_path / name for name in ("prompts.jsonl", "labels.jsonl", "head"))
    prompts.write_text("".join(json.dumps({"question": text}) + "\n" for text in PROMPTS))
    models = ["--small", folders[0], "--large", folders[1]]
    done = run(
        "label-divergence",
        str(prompts),
        str(labels),
        *models,
        "--field",
        "question",
        "--tokens",
        "8",
        "--judge",
        "logitkit.processors.cascade.labelling:SameText",
    )
    assert done.exit_code == 0 and "identical" in done.output, done.output
    targets = [label for one in read_labels(labels)[1] for label in one.labels]
    if len({label == divergence.DIVERGENT for label in targets}) == 1:
        lines = labels.read_text().splitlines()
        one = json.loads(lines[1])
        lines[1] = json.dumps(one | {"labels": [0, 2] * (len(one["labels"]) // 2) + [0] * (len(one["labels"]) % 2)})
        labels.write_text("\n".join(lines) + "\n")
    done = run("train-router", str(labels), str(head), *models, "--epochs", "2", "--width", "8")
    assert done.exit_code == 0 and 0 <= json.loads(done.output)["threshold"] <= 1, done.output
    call = logitkit.chain(f"router(large='big', head={str(head)!r})").bind(
        tiny_model(), tiny_tokenizer(), "a", big=tiny_model(1)
    )
    call.generate(max_new_tokens=2, do_sample=False)
    done = run("train-router", str(labels), str(head), "--small", folders[1], "--large", folders[0])
    assert done.exit_code == 2 and "trained for this pair of models, got one for another small" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere", "out"], "prompts must be a file"),
        (["{empty}", "out"], "must hold a prompt, got none"),
        (["{prompts}", "out", "--field", "question"], "must be JSON with 'question'"),
        (["{prompts}", "out", "--judge", "fair"], "--judge must be answer, text, model:NAME, or module:function"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, folders: list[str], tmp_path: Path) -> None:
    """Exit status 2, no traceback."""
    files = {"empty": tmp_path / "empty.txt", "prompts": tmp_path / "prompts.jsonl"}
    files["empty"].write_text("\n")
    files["prompts"].write_text('{"text": "a"}\n')
    given = [word.format(**files) if "{" in word else word for word in arguments]
    given[1] = str(tmp_path / given[1])
    done = run("label-divergence", *given, "--small", folders[0], "--large", folders[1])
    assert done.exit_code == 2 and says in " ".join(done.output.split()) and "Traceback" not in done.output
