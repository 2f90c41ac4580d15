"""Label where a small model's token changes the path of a large one: the training data of a router.

R2R, arXiv:2505.21600, section 3.2. The large model answers greedily; the small one is teacher-forced over
the answer. Where its token is another, the large model goes on from it, and a judge compares that with the
answer as it was: "neutral" if nothing that matters changed, else "divergent". Departures: the answer itself
is the continuation from the large model's own token, since both are greedy; the judge is pluggable, and the
default compares final answers instead of asking a 72-billion-parameter model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.cascade.model_fingerprint import pair_fingerprint
from logitkit.processors.cascade.router_head import Shape, features
from logitkit.processors.engine.captured_outputs import HiddenStates
from logitkit.processors.engine.prompts import left_padded, pad_token, read_prompts
from logitkit.processors.model_facts import end_tokens, text_config

IDENTICAL, NEUTRAL, DIVERGENT = 0, 1, 2
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two ways on from one place, as texts: with the small model's token, and as the large model answered."""

    prompt: str
    before: str
    small: str
    large: str


Judge = Callable[[Pair], bool]


@dataclass(frozen=True)
class SameAnswer:
    """Divergent where the final answers differ: the last match of a pattern, else the whole text.

    Case, spaces, thousands separators and a final point do not count.
    """

    pattern: str = _NUMBER

    def __call__(self, pair: Pair) -> bool:
        """Say whether the pair is divergent."""
        return self._answer(pair.before + pair.small) != self._answer(pair.before + pair.large)

    def _answer(self, text: str) -> str:
        found = re.findall(self.pattern, text)
        return " ".join((found[-1] if found else text).replace(",", "").lower().rstrip(". \n").split())


@dataclass(frozen=True)
class SameText:
    """Divergent where the continuations differ in anything but the spaces around them."""

    def __call__(self, pair: Pair) -> bool:
        """Say whether the pair is divergent."""
        return pair.small.strip() != pair.large.strip()


class ModelJudge:
    """Ask a language model whether two continuations mean the same; divergent where "no" is likelier than "yes".

    Args:
        model, tokenizer: of the judge; its chat template is used if it has one.
    """

    QUESTION = (
        "Two continuations of one text follow. Do they reach the same meaning, reasoning and conclusion?\n\n"
        "Text: {before}\n\nFirst: {small}\n\nSecond: {large}\n\nAnswer with yes or no."
    )

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        answers = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("yes", "no", "Yes", "No")]
        self._first = torch.tensor([ids[0] for ids in answers])
        self.plain = not getattr(tokenizer, "chat_template", None)

    @torch.no_grad()
    def __call__(self, pair: Pair) -> bool:
        """Say whether the pair is divergent."""
        text = self.QUESTION.format(before=(pair.prompt + pair.before)[-1000:], small=pair.small, large=pair.large)
        given: Any = text + "\nAnswer: " if self.plain else [{"role": "user", "content": text}]
        bound = read_prompts(self.tokenizer, self.model, given)
        yes, no, more_yes, more_no = self.model(bound.ids).logits[0, -1].float().log_softmax(-1)[self._first].tolist()
        return bool(max(no, more_no) > max(yes, more_yes))


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One prompt: the large model's answer, what the small one would have said at each token, and the labels."""

    prompt: int
    prompt_ids: list[int]
    answer_ids: list[int]
    small_ids: list[int]
    labels: list[int]


@torch.no_grad()
def label_prompt(
    number: int, prompt: Any, small: Any, large: Any, tokenizer: Any, judge: Judge, *, tokens: int, batch: int
) -> Labels:
    """Label one prompt; see `label_divergence`."""
    bound = read_prompts(tokenizer, large, prompt)
    pad = pad_token(tokenizer, large)
    settings = {"do_sample": False, "pad_token_id": pad}
    whole = large.generate(bound.ids, attention_mask=bound.mask, max_new_tokens=tokens, **settings)[0]
    head, answer = whole[: bound.width].tolist(), whole[bound.width :].tolist()
    kept = {"logits_to_keep": len(answer) + 1}
    own = small(input_ids=whole[None].to(small.device), **kept).logits[0, -len(answer) - 1 : -1].argmax(-1).tolist()
    labels = [IDENTICAL] * len(answer)
    differ = [place for place, (mine, theirs) in enumerate(zip(own, answer, strict=True)) if mine != theirs]
    ends = set(end_tokens(large))

    def text(ids: Iterable[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    for start in range(0, len(differ), batch):
        places = differ[start : start + batch]
        rows, mask = left_padded([head + answer[:place] + [own[place]] for place in places], pad)
        left = max(1, tokens - min(places) - 1)
        went_on = large.generate(
            rows.to(large.device), attention_mask=mask.to(large.device), max_new_tokens=left, **settings
        )
        for place, row in zip(places, went_on[:, rows.shape[1] - 1 :].tolist(), strict=True):
            row = row[:1] if row[0] in ends else row[: tokens - place]
            pair = Pair(prompt=bound.texts[0], before=text(answer[:place]), small=text(row), large=text(answer[place:]))
            labels[place] = DIVERGENT if judge(pair) else NEUTRAL
    return Labels(prompt=number, prompt_ids=head, answer_ids=answer, small_ids=own, labels=labels)


def label_divergence(
    prompts: Sequence[Any],
    out: str | Path,
    *,
    small: Any,
    large: Any,
    tokenizer: Any,
    judge: Judge | None = None,
    judge_name: str = "answer",
    tokens: int = 128,
    batch: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> list[Labels]:
    """Label prompts into a file of JSON lines; one that was interrupted goes on where it stopped.

    Args:
        prompts: texts or chats.
        out: the file; its first line says what it was made with.
        small, large, tokenizer: the pair.
        judge: says whether two continuations diverge; by default `SameAnswer`.
        judge_name: kept in the first line.
        tokens: of an answer, and of each continuation.
        batch: continuations that are generated together.
        advance: called once a prompt, those already in the file included.

    Raises:
        ParameterError: no prompts.
        FileFormatError: the file was made with other models, prompts or settings.
    """
    if not prompts:
        raise ParameterError("label_divergence", "prompts", "at least one", "none")
    made_with = {"kind": "divergence labels", "version": 1, "judge": judge_name, "tokens": tokens}
    made_with |= {"pair": pair_fingerprint(small, large, tokenizer)}
    done = _resume(Path(out), made_with)
    for one in done:
        if one.prompt >= len(prompts) or one.prompt_ids != _ids(tokenizer, large, prompts[one.prompt]):
            raise FileFormatError(
                f"label_divergence: {out} must hold labels of these prompts to go on, "
                f"got others (prompt {one.prompt}); write another file"
            )
        advance()
    with Path(out).open("a", encoding="utf-8") as file:
        for number in range(len(done), len(prompts)):
            found = label_prompt(
                number, prompts[number], small, large, tokenizer, judge or SameAnswer(), tokens=tokens, batch=batch
            )
            file.write(json.dumps(asdict(found)) + "\n")
            file.flush()
            done.append(found)
            advance()
    return done


def _ids(tokenizer: Any, model: Any, prompt: Any) -> list[int]:
    """The token ids of one prompt."""
    return read_prompts(tokenizer, model, prompt).tokens(0)


def read_labels(path: str | Path) -> tuple[dict[str, Any], list[Labels]]:
    """Read a file of labels: what it was made with, and the labels.

    Raises:
        FileFormatError: not such a file.
    """
    try:
        first, *lines = Path(path).read_text(encoding="utf-8").splitlines()
        made_with = json.loads(first)
        labels = [Labels(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"divergence labels: {path} must be a file of labels, got {error}") from error
    if not isinstance(made_with, dict) or made_with.get("kind") != "divergence labels":
        raise FileFormatError(f"divergence labels: {path} must start with what it was made with; label anew")
    return made_with, labels


def _resume(path: Path, made_with: dict[str, Any]) -> list[Labels]:
    """Start the file, or read what is in it; a line that was cut off is dropped.

    Raises:
        FileFormatError: it was made with something else.
    """
    if not path.is_file() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    if not text:
        return _resume(path, made_with)
    found, labels = read_labels(path)
    other = sorted(key for key in made_with if found.get(key) != made_with[key])
    if other:
        raise FileFormatError(
            f"label_divergence: {path} must have been made with the same {other[0]} to go on, "
            f"got {found.get(other[0])}; write another file"
        )
    return labels


@torch.no_grad()
def router_examples(labels: Sequence[Labels], small: Any, shape: Shape) -> tuple[Tensor, Tensor]:
    """Features and 0/1 targets (1: divergent) of every answer token, from one reading of each by the small model.

    Returns:
        ``[tokens, features]`` and ``[tokens]``.
    """
    states, embed = HiddenStates(small), small.get_input_embeddings()
    rows, targets = [], []
    for one in labels:
        if not one.answer_ids:
            continue
        ids = torch.tensor([one.prompt_ids + one.answer_ids], device=small.device)
        hidden = states(input_ids=ids).logits[0, len(one.prompt_ids) - 1 : -1]
        logits = small(input_ids=ids).logits[0, len(one.prompt_ids) - 1 : -1]
        rows.append(features(hidden, logits, embed, shape.top).cpu())
        targets.append(torch.tensor([label == DIVERGENT for label in one.labels]).long())
    if not rows:
        raise ModelError("router_examples: labels must hold an answer token, got none; label more prompts")
    return torch.cat(rows), torch.cat(targets)


def shape_for(small: Any, *, top: int = 100, width: int = 128, blocks: int = 2) -> Shape:
    """The sizes of a router for a small model."""
    embedding = small.get_input_embeddings().weight.shape[1]
    hidden = text_config(small).hidden_size
    return Shape(hidden=hidden, embedding=embedding, top=top, width=width, blocks=blocks)
