"""Truncations of transformers, which keep as many tokens under beams as `generate` keeps in its own truncations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings

__all__ = ["EpsilonCutoff", "EtaCutoff", "MinP", "TopK", "TopP", "Truncation", "Typical"]


class Truncation(LogitsProcessor):
    """A truncation of transformers that keeps enough tokens for beams.

    Beams that reach an end token leave the search, so `generate` keeps one token more than there are end tokens, and
    at least two, when it adds a truncation itself. This class keeps as many when `generate` searches with beams.

    Args:
        min_tokens_to_keep: number of tokens kept at least, without beams.
        settings: the settings of the call; None: no beams.
        parameters: the other parameters of the truncation.

    Example:
        >>> import torch
        >>> TopK(top_k=1)(torch.tensor([[0]]), torch.tensor([[1.0, 2.0]]))
        tensor([[-inf, 2.]])
    """

    kind: ClassVar[Callable[..., LogitsProcessor]]

    def __init__(self, *, min_tokens_to_keep: int = 1, settings: BoundSettings = None, **parameters: Any) -> None:
        self._least, self._settings, self._parameters = min_tokens_to_keep, settings, parameters
        self._built: dict[int, LogitsProcessor] = {}
        self._inner(min_tokens_to_keep)

    @classmethod
    def bind(cls, binding: Binding, **parameters: Any) -> Truncation:
        """Return the truncation with the settings of the call."""
        return cls(settings=binding.settings, **parameters)

    def _inner(self, keep: int) -> LogitsProcessor:
        """Return the truncation of transformers that keeps this many tokens at least."""
        if keep not in self._built:
            self._built[keep] = self.kind(min_tokens_to_keep=keep, **self._parameters)
        return self._built[keep]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        keep = self._least if self._settings is None else self._settings.least_kept(self._least)
        truncated: Tensor = self._inner(keep)(input_ids, scores)
        return truncated


class TopK(Truncation):
    """Keep the ``top_k`` likeliest tokens; see `Truncation`."""

    kind = TopKLogitsWarper


class TopP(Truncation):
    """Keep the likeliest tokens up to a cumulative probability ``top_p``; see `Truncation`."""

    kind = TopPLogitsWarper


class MinP(Truncation):
    """Keep tokens of at least ``min_p`` times the largest probability; see `Truncation`."""

    kind = MinPLogitsWarper


class Typical(Truncation):
    """Keep the most typical tokens up to a cumulative probability ``mass``; see `Truncation`."""

    kind = TypicalLogitsWarper


class EpsilonCutoff(Truncation):
    """Remove tokens below the probability ``epsilon``; see `Truncation`."""

    kind = EpsilonLogitsWarper


class EtaCutoff(Truncation):
    """Remove tokens below a probability that depends on the entropy; see `Truncation`."""

    kind = EtaLogitsWarper
