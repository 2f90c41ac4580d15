"""The tokens with which the continuation of a trimmed prompt may spell the removed bytes, and their probabilities.

A path is a token sequence that spells a proper beginning of the removed bytes. After a path t, a next token r has
the weight

    p(r | trimmed prompt, t) * P(the rest of the removed bytes follows t r).

The first factor comes from the scores at the step. This module computes the second factor, in log space, for every
path and every token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitkit.errors import PromptError
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.prompt_trimming import TrimmedPrompt
from logitkit.processors.engine.kv_tree import KVTree

Path = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuationTable:
    """All paths of all prompts with their next tokens, as tensors.

    Attributes:
        prompt: number of the prompt of each path, ``[paths]``.
        path: tokens after the trimmed prompt, padded with -1, ``[paths, longest]``.
        length: number of tokens of each path, ``[paths]``.
        tokens: the tokens that may come next, padded by repeating the first, ``[paths, most]``.
        rest: log-probability in nats that the rest of the removed bytes follows each token, ``[paths, most]``.
    """

    prompt: Tensor
    path: Tensor
    length: Tensor
    tokens: Tensor
    rest: Tensor

    def to(self, device: torch.device) -> ContinuationTable:
        """Return the table on a device; the table itself if it is there."""
        if self.prompt.device == device:
            return self
        fields = {field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        return ContinuationTable(**fields)


class Continuations(NamedTuple):
    """One path and the tokens that may come next.

    Attributes:
        path: tokens after the trimmed prompt.
        rest: for each next token the log-probability in nats that the rest of the removed bytes follows.
    """

    path: Path
    rest: dict[int, float]


class PathReader:
    """Reads token paths after trimmed prompts with a language model.

    Attributes:
        forwards: forward passes so far.
        tokens: tokens read so far.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.forwards = self.tokens = 0

    def __call__(self, prompt: TrimmedPrompt, paths: Sequence[Path]) -> dict[Path, NDArray[np.float32]]:
        """Return log-probabilities in nats of the next token after the prompt and each path, ``[vocab]`` each.

        Without paths the model is not called.
        """
        if not paths:
            return {}
        tree = KVTree(self._model)
        end = tree.read(tree.root, prompt.tokens, conditioning=True)
        nodes = tree.grow((end, path) for path in paths)
        self.forwards, self.tokens = self.forwards + tree.forwards, self.tokens + tree.tokens_fed
        return {path: node.logp for path, node in zip(paths, nodes, strict=True) if node.logp is not None}


def continuation_table(prompts: Sequence[TrimmedPrompt], covers: Covers, read: PathReader) -> ContinuationTable:
    """Return the table of all prompts; the model reads each prompt with removed bytes once."""
    entries = [
        (number, entry)
        for number, prompt in enumerate(prompts)
        if prompt.removed
        for entry in _continuations(prompt, covers, read)
    ]
    longest = max((len(entry.path) for _, entry in entries), default=0)
    most = max((len(entry.rest) for _, entry in entries), default=0)
    paths = [[*entry.path, *[-1] * (longest - len(entry.path))] for _, entry in entries]
    tokens = [[*entry.rest, *[next(iter(entry.rest))] * (most - len(entry.rest))] for _, entry in entries]
    rests = [[entry.rest[token] for token in ids] for (_, entry), ids in zip(entries, tokens, strict=True)]
    return ContinuationTable(
        prompt=torch.tensor([number for number, _ in entries], dtype=torch.long),
        path=torch.tensor(paths, dtype=torch.long).reshape(len(entries), longest),
        length=torch.tensor([len(entry.path) for _, entry in entries], dtype=torch.long),
        tokens=torch.tensor(tokens, dtype=torch.long).reshape(len(entries), most),
        rest=torch.tensor(rests, dtype=torch.float32).reshape(len(entries), most),
    )


def _continuations(prompt: TrimmedPrompt, covers: Covers, read: PathReader) -> list[Continuations]:
    """Return the paths of one prompt that can complete the removed bytes, the paths with the most bytes first.

    Raises:
        PromptError: no tokens spell the removed bytes after the trimmed prompt.
    """
    context = covers.placing_context(prompt.context_tokens, prompt.removed)
    if context is None:
        raise PromptError(
            f"byte_boundary: the bytes removed from a prompt must be ones that its tokenizer can spell there, got "
            f"{prompt.removed!r}; bind the whole prompt"
        )
    begin = Hypothesis(context=context, start=0)
    extensions = _all_extensions(begin, prompt.removed, covers)
    # Paths with the most bytes come first, because the value of a path is computed from its extensions.
    inner = sorted((entry.hypothesis for entry in extensions.values()), key=lambda hypothesis: -hypothesis.start)
    beyond = {hypothesis.tokens: covers.tokens_beyond(hypothesis, prompt.removed).tolist() for hypothesis in inner}
    completable = _completable(inner, beyond, extensions, len(prompt.removed))
    paths = [hypothesis.tokens for hypothesis in inner if hypothesis.tokens in completable]
    logp = read(prompt, [path for path in paths if path])
    after_path: dict[Path, float] = {}  # log-probability that the rest of the removed bytes follows a path
    continuations = []
    for path in paths:
        rest = dict.fromkeys(beyond[path], 0.0)
        for longer in extensions[path].longer:
            if longer.start == len(prompt.removed) or longer.tokens in completable:
                rest[longer.tokens[-1]] = after_path.get(longer.tokens, 0.0)
        if path:
            after_path[path] = logsumexp(logp[path][list(rest)] + np.fromiter(rest.values(), dtype=np.float64))
        continuations.append(Continuations(path, rest))
    return continuations


class _Extensions(NamedTuple):
    """A hypothesis that ends inside the removed bytes, and its extensions by one token within these bytes."""

    hypothesis: Hypothesis
    longer: list[Hypothesis]


def _all_extensions(begin: Hypothesis, removed: bytes, covers: Covers) -> dict[Path, _Extensions]:
    """Return every hypothesis that ends inside the removed bytes, by its path, with its extensions."""
    extensions: dict[Path, _Extensions] = {}
    pending = [begin]
    while pending:
        hypothesis = pending.pop()
        longer = covers.extensions_within(hypothesis, removed)
        extensions[hypothesis.tokens] = _Extensions(hypothesis, longer)
        pending += [extension for extension in longer if extension.start < len(removed)]
    return extensions


def _completable(
    inner: Sequence[Hypothesis],
    beyond: Mapping[Path, list[int]],
    extensions: Mapping[Path, _Extensions],
    end: int,
) -> set[Path]:
    """Return the paths from which some tokens reach the end of the removed bytes.

    Args:
        inner: hypotheses that end inside the removed bytes, those of most bytes first.
        beyond: for each path the tokens that reach beyond the removed bytes.
        extensions: for each path its extensions within the removed bytes.
        end: number of removed bytes.
    """
    completable = {hypothesis.tokens for hypothesis in inner if beyond[hypothesis.tokens]}
    for hypothesis in inner:
        longer = extensions[hypothesis.tokens].longer
        if any(extension.start == end or extension.tokens in completable for extension in longer):
            completable.add(hypothesis.tokens)
    return completable
