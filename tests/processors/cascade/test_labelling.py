"""Divergence labels: equal to labels made token by token, and resumable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.cascade import (
    DIVERGENT,
    IDENTICAL,
    NEUTRAL,
    ContinuationPair,
    DivergenceLabels,
    ModelPair,
    label_divergence,
    read_labels,
    router_examples,
    router_head_config,
)
from logitkit.processors.cascade.labelling import Labeller
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three"]
PAIR = ModelPair(small=tiny_model(), large=tiny_model(1), tokenizer=tiny_tokenizer())
END = 257


def labels_by_tokens(prompt: str, judge: Callable[[ContinuationPair], bool], tokens: int) -> list[int]:
    """Label each token on its own; every prefix is read from scratch."""

    def greedy(model: Any, ids: list[int], count: int) -> list[int]:
        out: list[int] = []
        with torch.no_grad():
            while len(out) < count and (not out or out[-1] != END):
                out.append(int(model(torch.tensor([ids + out])).logits[0, -1].argmax()))
        return out

    def text(ids: list[int]) -> str:
        return str(tiny_tokenizer().decode(ids, skip_special_tokens=True))

    prompt_ids = tiny_tokenizer()(prompt)["input_ids"]
    answer, labels = greedy(tiny_model(1), prompt_ids, tokens), []
    for place in range(len(answer)):
        (predicted,) = greedy(tiny_model(), prompt_ids + answer[:place], 1)
        if predicted == answer[place]:
            labels.append(IDENTICAL)
            continue
        count = 0 if predicted == END else tokens - place - 1
        continuation = [predicted, *greedy(tiny_model(1), prompt_ids + answer[:place] + [predicted], count)]
        before, small, large = text(answer[:place]), text(answer[:place] + continuation), text(answer)
        while not (small.startswith(before) and large.startswith(before)):  # a character that is not complete
            before = before[:-1]
        rest = (whole[len(before) :] for whole in (small, large))
        pair = ContinuationPair(prompt=prompt, before=before, small=next(rest), large=next(rest))
        labels.append(DIVERGENT if judge(pair) else NEUTRAL)
    return labels


def parity_differs(pair: ContinuationPair) -> bool:
    """Judge random texts by the parity of their last letters, so that both labels occur."""
    return (ord(pair.small[-1:] or "a") - ord(pair.large[-1:] or "a")) % 2 == 1


def test_labels_equal_recomputation(tmp_path: Path) -> None:
    """Labels from left-padded batches of continuations equal labels made one token at a time."""
    labels = label_divergence(PROMPTS, tmp_path / "labels.jsonl", PAIR, judge=parity_differs, tokens=8, batch_size=3)
    assert [prompt.labels for prompt in labels] == [labels_by_tokens(text, parity_differs, 8) for text in PROMPTS]
    assert {label for prompt in labels for label in prompt.labels} >= {NEUTRAL, DIVERGENT}


def test_parts_of_an_answer_join_to_the_whole_texts() -> None:
    """A tokenizer may drop the first space of a text, or show half a character; a judge still sees whole texts."""

    class Pieces:
        """Decodes pieces of bytes as the tokenizers of Llama and GPT-2 do."""

        def decode(self, ids: list[bytes], skip_special_tokens: bool) -> str:
            return b"".join(ids).decode(errors="replace").removeprefix(" ")

    pieces: Any = Pieces()
    labeller = Labeller(ModelPair(small=None, large=None, tokenizer=pieces))
    before: Any = [b" a", b" blue"]
    assert labeller._texts(before, [b" boat", b"."], [b"bird"]) == ["a blue", " boat.", "bird"]  # type: ignore[list-item]
    half: Any = [b" caf", b"\xc3"]
    assert labeller._texts(half, [b"\xa9"], [b"\xa8", b"!"]) == ["caf", "\u00e9", "\u00e8!"]  # type: ignore[list-item]


def test_a_model_against_itself_is_identical(tmp_path: Path) -> None:
    """When small and large model are the same, every label is "identical"."""
    same = ModelPair(small=tiny_model(), large=tiny_model(), tokenizer=tiny_tokenizer())
    (labels,) = label_divergence(PROMPTS[:1], tmp_path / "labels.jsonl", same, tokens=6)
    assert set(labels.labels) == {IDENTICAL}


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    """A resumed run drops an incomplete last line, keeps complete ones and ends with the same file."""
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    label_divergence(PROMPTS, whole, PAIR, tokens=6)
    cut.write_text("".join(whole.read_text().splitlines(keepends=True)[:2]) + '{"prompt": 1, "la')
    advanced: list[int] = []
    label_divergence(PROMPTS, cut, PAIR, tokens=6, advance=lambda: advanced.append(1))
    assert cut.read_text() == whole.read_text() and len(advanced) == 3
    assert [labels.prompt for labels in read_labels(cut)[1]] == [0, 1, 2]


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    """Other models, settings or prompts raise an error that names the difference; the file does not change."""
    out = tmp_path / "labels.jsonl"
    label_divergence(PROMPTS, out, PAIR, tokens=4)
    before = out.read_text()
    with pytest.raises(FileFormatError, match="made with the same tokens"):
        label_divergence(PROMPTS, out, PAIR, tokens=5)
    other = ModelPair(small=tiny_model(), large=tiny_model(2), tokenizer=tiny_tokenizer())
    with pytest.raises(FileFormatError, match="made with the same pair"):
        label_divergence(PROMPTS, out, other, tokens=4)
    with pytest.raises(FileFormatError, match=r"labels of these prompts to be resumed, got others \(prompt 0\)"):
        label_divergence(["else", *PROMPTS[1:]], out, PAIR, tokens=4)
    with pytest.raises(ParameterError, match="prompts must be at least one"):
        label_divergence([], out, PAIR)
    assert out.read_text() == before
    (tmp_path / "junk").write_text("hello\n")
    with pytest.raises(FileFormatError, match="must be a file of labels"):
        read_labels(tmp_path / "junk")


def test_examples_are_the_small_models_states() -> None:
    """Each labelled token gives one example: the hidden state before the token, and whether it is divergent."""
    labels = DivergenceLabels(prompt=0, prompt_ids=[65, 66], answer_ids=[67, 68], small_ids=[67, 70], labels=[0, 2])
    config = router_head_config(tiny_model(), top_logits=5)
    features, targets = router_examples([labels], tiny_model(), config)
    states = tiny_model()(torch.tensor([[65, 66, 67, 68]]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(features[:, : config.hidden_size], states[0, 1:3].detach())
    assert features.shape == (2, config.hidden_size + config.embedding_size + 5) and targets.tolist() == [0, 1]
    with pytest.raises(ModelError, match="labels must hold an answer token"):
        router_examples([], tiny_model(), config)
