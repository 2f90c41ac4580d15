"""Divergence labels: which tokens of a small model change the result of a large one. Training data of a router head.

Source: R2R, arXiv:2505.21600, section 3.2. The large model answers a prompt greedily. The small model predicts every
token of that answer. Where the prediction differs from the answer, the large model continues from the small model's
token, and a judge compares this continuation with the answer. The label is "identical" for equal tokens, "neutral"
when the judge finds no difference that matters, and "divergent" otherwise.

Departures: the answer itself is the continuation from the large model's own token, since both are greedy. The judge
is a parameter; the default compares final answers instead of asking a model of 72 billion parameters.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.execution import Engine, PerProcess, carry_out, local, value_of
from logitkit.processors.cascade.judges import ContinuationPair, Judge, SameAnswer
from logitkit.processors.cascade.label_files import (
    DIVERGENT,
    IDENTICAL,
    NEUTRAL,
    DivergenceLabels,
    LabelSettings,
    append_labels,
    resume_labels,
    write_labels,
)
from logitkit.processors.cascade.model_fingerprint import ModelPair
from logitkit.processors.cascade.router_head import RouterHeadConfig, router_features
from logitkit.processors.engine.captured_outputs import HiddenStates
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.engine.prompt_inputs import refuse_prepared_inputs
from logitkit.processors.engine.prompts import pad_token, read_prompts
from logitkit.processors.engine.shared_vocabulary import SharedVocabulary, check_prompts, with_shared_ids
from logitkit.processors.model_facts import end_tokens, text_config, vocabulary_size


# Over 40 lines: the docstring documents nine parameters.
def label_divergence(
    prompts: Sequence[Any],
    out: str | Path,
    pair: ModelPair | PerProcess[ModelPair],
    *,
    judge: Judge | None = None,
    judge_name: str = "answer",
    tokens: int = 128,
    batch_size: int = 8,
    advance: Callable[[], None] = lambda: None,
    engine: Engine = local,
) -> list[DivergenceLabels]:
    """Label the answers to prompts and write the labels to a file; an interrupted run can be resumed.

    The labels of a prompt are appended when they are complete. At the end the file is in the order of the prompts.

    Args:
        prompts: texts or chats.
        out: the file, JSON lines; its first line holds the settings.
        pair: the models and their tokenizer. Workers of another process load the pair themselves where it is a
            `PerProcess`, and receive its weights otherwise.
        judge: decides whether two continuations diverge; default `SameAnswer`.
        judge_name: name of the judge in the file.
        tokens: largest number of tokens of an answer, its continuations included.
        batch_size: number of continuations that are generated together.
        advance: called after each prompt, those read from the file included.
        engine: runs the prompts.

    Returns:
        The labels of every prompt, in the order of the prompts.

    Raises:
        ParameterError: no prompts.
        FileFormatError: the file was made with other models, prompts or settings.

    >>> import tempfile
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> pair = ModelPair(small=tiny_model(), large=tiny_model(), tokenizer=tiny_tokenizer())
    >>> labels = label_divergence(["a prompt"], tempfile.mkdtemp() + "/labels.jsonl", pair, tokens=3)
    >>> labels[0].labels  # a model never diverges from itself
    [0, 0, 0]
    """
    if not prompts:
        raise ParameterError("label_divergence", "prompts", "at least one", "none")
    path, own = Path(out), value_of(pair)
    settings = LabelSettings(judge=judge_name, tokens=tokens, pair=own.fingerprint())
    written = resume_labels(path, settings)
    for stored in written:
        _check_prompt(stored, prompts, own, path)
        advance()

    def keep(number: int, labels: DivergenceLabels) -> None:
        append_labels(path, labels)
        written.append(labels)
        advance()

    present = {stored.prompt for stored in written}
    missing = [number for number in range(len(prompts)) if number not in present]
    labeller = functools.partial(_labels, pair, prompts, judge or SameAnswer(), tokens, batch_size)
    carry_out(labeller, missing, keep, engine=engine)
    ordered = sorted(written, key=lambda labels: labels.prompt)
    if ordered != written:
        write_labels(path, settings, ordered)
    return ordered


def _labels(
    pair: ModelPair | PerProcess[ModelPair],
    prompts: Sequence[Any],
    judge: Judge,
    tokens: int,
    batch_size: int,
    number: int,
) -> DivergenceLabels:
    """Label the answer to the prompt of a number: a unit of `label_divergence`."""
    labeller = Labeller(value_of(pair), judge=judge, tokens=tokens, batch_size=batch_size)
    return labeller.label(number, prompts[number])


@dataclass(frozen=True, eq=False)
class Labeller:
    """Labels the large model's answer to single prompts.

    Attributes:
        pair, judge, tokens, batch_size: as in `label_divergence`.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> pair = ModelPair(small=tiny_model(), large=tiny_model(), tokenizer=tiny_tokenizer())
    >>> Labeller(pair, tokens=4).label(0, "a prompt").labels  # a model never diverges from itself
    [0, 0, 0, 0]
    """

    pair: ModelPair
    judge: Judge = field(default_factory=SameAnswer)
    tokens: int = 128
    batch_size: int = 8

    @torch.no_grad()
    def label(self, number: int, prompt: Any) -> DivergenceLabels:
        """Label the answer to one prompt, a text or a chat.

        Args:
            number: number of the prompt, stored with its labels.
            prompt: the prompt.
        """
        bound = read_prompts(self.pair.tokenizer, self.pair.large, prompt)
        refuse_prepared_inputs("label_divergence", bound.inputs)
        check_prompts([bound.tokens(0)], self.pair.agreement, "label_divergence: the large model")
        row = self._continued(bound.ids, bound.mask, self.tokens)[0]
        prompt_ids, answer = row[: bound.width].tolist(), row[bound.width :].tolist()
        predicted = self._small_predictions(row, len(answer))
        labels = [IDENTICAL] * len(answer)
        places = [place for place, (mine, own) in enumerate(zip(predicted, answer, strict=True)) if mine != own]
        for start in range(0, len(places), self.batch_size):
            batch = places[start : start + self.batch_size]
            rows = [prompt_ids + answer[:place] + [predicted[place]] for place in batch]
            for place, continuation in zip(batch, self._continuations(rows, batch), strict=True):
                before, small, large = self._texts(answer[:place], continuation, answer[place:])
                pair = ContinuationPair(prompt=bound.texts[0], before=before, small=small, large=large)
                labels[place] = DIVERGENT if self.judge(pair) else NEUTRAL
        return DivergenceLabels(
            prompt=number, prompt_ids=prompt_ids, answer_ids=answer, small_ids=predicted, labels=labels
        )

    def _small_predictions(self, row: Tensor, count: int) -> list[int]:
        """Return the small model's most likely token in the place of each of the last ``count`` tokens."""
        small = self.pair.small
        logits = small(input_ids=row[None].to(small.device), logits_to_keep=count + 1).logits[0, -count - 1 : -1]
        logits = with_shared_ids(logits, self.pair.agreement.shared.to(logits.device))
        return logits.argmax(-1).tolist()

    def _continuations(self, rows: list[list[int]], places: list[int]) -> list[list[int]]:
        """Return each row's last token and the large model's continuation, up to ``tokens`` tokens of an answer."""
        ids, mask = left_padded(rows, self._pad)
        output = self._continued(ids, mask, max(1, self.tokens - min(places) - 1))
        ends = end_tokens(self.pair.large)
        continuations = []
        for place, tokens in zip(places, output[:, ids.shape[1] - 1 :].tolist(), strict=True):
            continuations.append(tokens[:1] if tokens[0] in ends else tokens[: self.tokens - place])
        return continuations

    def _continued(self, ids: Tensor, mask: Tensor, tokens: int) -> Tensor:
        """Continue rows with the large model, greedily; tokens that the small model lacks are impossible."""
        large, vocabulary = self.pair.large, SharedVocabulary()
        vocabulary.restrict(self.pair.agreement.shared)
        return large.generate(  # type: ignore[no-any-return]
            ids.to(large.device),
            attention_mask=mask.to(large.device),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=self._pad,
            logits_processor=LogitsProcessorList([vocabulary]),
        )

    @property
    def _pad(self) -> int:
        """Id of the padding, one that the large model can read; padding is masked, so the id changes no result."""
        pad = pad_token(self.pair.tokenizer, self.pair.large)
        return pad if pad < vocabulary_size(self.pair.large) else 0

    def _texts(self, before: list[int], *continuations: list[int]) -> list[str]:
        """Return the text before two continuations, and each of them, so that the parts join to the whole texts.

        Many tokenizers leave out the space of the first token of a text, so tokens are never decoded without those
        before them. A character that the continuations begin inside belongs to the continuations.
        """
        whole = [self._text(before + ids) for ids in continuations]
        alike = zip(self._text(before), *whole, strict=False)
        common = "".join(first for first, *_ in itertools.takewhile(lambda letters: len(set(letters)) == 1, alike))
        return [common, *(text[len(common) :] for text in whole)]

    def _text(self, ids: list[int]) -> str:
        """Return the text of token ids."""
        return str(self.pair.tokenizer.decode(ids, skip_special_tokens=True))


def _check_prompt(stored: DivergenceLabels, prompts: Sequence[Any], pair: ModelPair, path: Path) -> None:
    """Refuse stored labels that belong to another prompt."""
    if stored.prompt < len(prompts):
        bound = read_prompts(pair.tokenizer, pair.large, prompts[stored.prompt])
        if stored.prompt_ids == bound.tokens(0):
            return
    raise FileFormatError(
        f"label_divergence: {path} must hold labels of these prompts to be resumed, "
        f"got others (prompt {stored.prompt}); write another file"
    )


@torch.no_grad()
def router_examples(labels: Sequence[DivergenceLabels], small: Any, config: RouterHeadConfig) -> tuple[Tensor, Tensor]:
    """Return the training examples of a router head, one for each labelled token.

    Args:
        labels: labels of any number of prompts.
        small: the small model, which reads every answer once.
        config: sizes of the head.

    Returns:
        Features ``[tokens, features]`` and targets ``[tokens]``: 1 for divergent tokens, else 0.

    Raises:
        ModelError: the labels hold no token.

    >>> from logitkit.registry.laws import tiny_model
    >>> labels = DivergenceLabels(prompt=0, prompt_ids=[65, 66], answer_ids=[67, 68], small_ids=[67, 70], labels=[0, 2])
    >>> features, targets = router_examples([labels], tiny_model(), router_head_config(tiny_model(), top_logits=5))
    >>> targets
    tensor([0, 1])
    """
    states, embed = HiddenStates(small), small.get_input_embeddings()
    features, targets = [], []
    for prompt in labels:
        if not prompt.answer_ids:
            continue
        ids = torch.tensor([prompt.prompt_ids + prompt.answer_ids], device=small.device)
        predicting = slice(len(prompt.prompt_ids) - 1, -1)  # the positions before each answer token
        hidden, logits = states(input_ids=ids).logits[0, predicting], small(input_ids=ids).logits[0, predicting]
        features.append(router_features(hidden, logits, embed, config.top_logits).cpu())
        targets.append(torch.tensor([label == DIVERGENT for label in prompt.labels]).long())
    if not features:
        raise ModelError("router_examples: labels must hold an answer token, got none; label more prompts")
    return torch.cat(features), torch.cat(targets)


def router_head_config(small: Any, *, top_logits: int = 100, width: int = 128, blocks: int = 2) -> RouterHeadConfig:
    """Return the sizes of a router head for a small model.

    Args:
        small: the small model, for the sizes of its hidden state and embedding.
        top_logits, width, blocks: as in `RouterHeadConfig`.

    >>> from logitkit.registry.laws import tiny_model
    >>> router_head_config(tiny_model()).hidden_size
    32
    """
    return RouterHeadConfig(
        hidden_size=text_config(small).hidden_size,
        embedding_size=small.get_input_embeddings().weight.shape[1],
        top_logits=top_logits,
        width=width,
        blocks=blocks,
    )
