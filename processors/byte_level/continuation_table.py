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

from logitkit.processors.byte_level.covers import Covers, Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.prompt_trimming import TrimmedPrompt
from logitkit.processors.engine.kv_tree import KVTree

Path = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuationTable:
    """All paths of all prompts with their next tokens, as tensors.

    Attributes:
        prompt: number of the prompt of each path, ``[paths]``.
        path: tokens behind the trimmed prompt, padded with -1, ``[paths, longest]``.
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
        path: tokens behind the trimmed prompt.
        rest: for each next token the log-probability in nats that the rest of the removed bytes follows.
    """

    path: Path
    rest: dict[int, float]


class PathReader:
    """Reads token paths behind trimmed prompts with a language model.

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
    numbered = [
        (number, continuations)
        for number, prompt in enumerate(prompts)
        if prompt.removed
        for continuations in _continuations(prompt, covers, read)
    ]
    longest = max((len(each.path) for _, each in numbered), default=0)
    most = max((len(each.rest) for _, each in numbered), default=0)
    paths = [[*each.path, *[-1] * (longest - len(each.path))] for _, each in numbered]
    tokens = [[*each.rest, *[next(iter(each.rest))] * (most - len(each.rest))] for _, each in numbered]
    rests = [[each.rest[token] for token in row] for (_, each), row in zip(numbered, tokens, strict=True)]
    return ContinuationTable(
        prompt=torch.tensor([number for number, _ in numbered], dtype=torch.long),
        path=torch.tensor(paths, dtype=torch.long).reshape(len(numbered), longest),
        length=torch.tensor([len(each.path) for _, each in numbered], dtype=torch.long),
        tokens=torch.tensor(tokens, dtype=torch.long).reshape(len(numbered), most),
        rest=torch.tensor(rests, dtype=torch.float32).reshape(len(numbered), most),
    )


def _continuations(prompt: TrimmedPrompt, covers: Covers, read: PathReader) -> list[Continuations]:
    """Return the paths of one prompt from which the removed bytes can be completed, the longest first."""
    begin = Hypothesis(context=covers.context(prompt.context_tokens), start=0)
    extensions = _all_extensions(begin, prompt.removed, covers)
    # Longest first: the probability after a path is known before the paths that lead to it are weighed.
    inner = sorted((hypothesis for hypothesis, _ in extensions.values()), key=lambda each: -each.start)
    beyond = {each.tokens: covers.tokens_beyond(each, prompt.removed).tolist() for each in inner}
    followed = {path: following for path, (_, following) in extensions.items()}
    open_paths = _completable(inner, beyond, followed, len(prompt.removed))
    inner = [each for each in inner if each.tokens in open_paths]
    logp = read(prompt, [each.tokens for each in inner if each.tokens])
    after_path: dict[Path, float] = {}
    found = []
    for each in inner:
        rest = dict.fromkeys(beyond[each.tokens], 0.0)
        for longer in followed[each.tokens]:
            if longer.start == len(prompt.removed) or longer.tokens in open_paths:
                rest[longer.tokens[-1]] = after_path.get(longer.tokens, 0.0)
        if each.tokens:
            weights = np.fromiter(rest.values(), dtype=np.float64)
            after_path[each.tokens] = logsumexp(logp[each.tokens][list(rest)] + weights)
        found.append(Continuations(each.tokens, rest))
    return found


def _all_extensions(
    begin: Hypothesis, removed: bytes, covers: Covers
) -> dict[Path, tuple[Hypothesis, list[Hypothesis]]]:
    """Return every hypothesis that ends inside the removed bytes, by its path, with its extensions by one token."""
    extensions: dict[Path, tuple[Hypothesis, list[Hypothesis]]] = {}
    pending = [begin]
    while pending:
        hypothesis = pending.pop()
        longer = covers.extensions_within(hypothesis, removed)
        extensions[hypothesis.tokens] = hypothesis, longer
        pending += [each for each in longer if each.start < len(removed)]
    return extensions


def _completable(
    inner: Sequence[Hypothesis],
    beyond: Mapping[Path, list[int]],
    followed: Mapping[Path, list[Hypothesis]],
    end: int,
) -> set[Path]:
    """Return the paths from which some tokens reach the end of the removed bytes; ``inner`` is sorted longest first."""
    completable = {each.tokens for each in inner if beyond[each.tokens]}
    for each in inner:
        if any(longer.start == end or longer.tokens in completable for longer in followed[each.tokens]):
            completable.add(each.tokens)
    return completable
