"""Truncations as logits processors. The formulas are in `logitkit.processors.samplers.truncation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings
from logitkit.processors.engine.prefix_random import PrefixRandom, UniformSource
from logitkit.processors.samplers.truncation import p_less, tail_free, top_a, top_n_sigma, xtc
from logitkit.processors.tokens.vocabulary import vocabulary_of

__all__ = ["XTC", "PLess", "TailFree", "TopA", "TopNSigma"]

Keep = Annotated[int, whole("keep at least this many tokens", ge=1)]


class _Truncation(LogitsProcessor):
    """A truncation that keeps enough tokens for beams, as the truncations of transformers do."""

    def __init__(self, min_keep: int, settings: BoundSettings) -> None:
        self.min_keep, self._settings = min_keep, settings

    @property
    def _least(self) -> int:
        """Number of tokens that are kept at least: under beams, one more than there are end tokens, and two."""
        return self.min_keep if self._settings is None else self._settings.least_kept(self.min_keep)


class XTC(_Truncation):
    """Exclude top choices, as `xtc` computes it: remove the most probable tokens, at a random half of the steps.

    Beams and assisted decoding ask twice about one prefix, so the coin is a function of the seed and the tokens of the
    row.

    Args:
        threshold: probability from which a token is a top choice; above 0.5 nothing is ever removed.
        probability: how often tokens are removed; 0 returns the scores unchanged.
        min_keep: a row that would keep fewer tokens stays as it is.
        protected: ids of tokens; a row that would lose one of them stays as it is.
        random_numbers: number in [0, 1) of each row; None: from the tokens of the row, with seed 0.
        settings: the settings of the call; None: no beams.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
        >>> XTC(probability=1.0)(torch.tensor([[7]]), scores).exp()
        tensor([[0.0000, 0.0000, 0.1500, 0.0500]])
    """

    order = ("threshold", "probability", "seed")

    @checked
    def __init__(
        self,
        *,
        threshold: Annotated[float, number("probability from which a token is a top choice", ge=0, le=1)] = 0.1,
        probability: Annotated[
            float, number("share of the steps at which top choices are removed", ge=0, le=1, neutral=0)
        ] = 0.5,
        min_keep: Annotated[int, whole("leave a row as it is if it would keep fewer tokens", ge=1)] = 1,
        protected: Annotated[Sequence[int], Resource()] = (),
        random_numbers: UniformSource = None,
        settings: BoundSettings = None,
    ) -> None:
        super().__init__(min_keep, settings)
        self.threshold, self.probability = threshold, probability
        self.protected, self.random_numbers = tuple(protected), random_numbers or PrefixRandom()

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        threshold: float,
        probability: float,
        seed: Annotated[int, whole("another seed gives other coins")] = 0,
        protect: Annotated[
            list[str] | None,
            option("texts of tokens, such as a line break or the end token; a row that would lose one stays as it is"),
        ] = None,
        min_keep: int,
    ) -> XTC:
        """Build the processor with coins from the seed and the prefix.

        Raises:
            ParameterError: no token has a text of ``protect``.
        """
        return cls(
            threshold=threshold,
            probability=probability,
            min_keep=min_keep,
            protected=_tokens_of(binding, protect or []),
            random_numbers=PrefixRandom(seed=seed, prompts=binding.prompts),
            settings=binding.settings,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``."""
        if is_neutral(self.probability, 0) or self.threshold > 0.5:
            return scores
        acts = self.random_numbers(input_ids) < self.probability
        protected = [token for token in self.protected if token < scores.shape[-1]]
        return xtc(scores, acts, threshold=self.threshold, min_keep=self._least, protected=protected)


def _tokens_of(binding: Binding, texts: Sequence[str]) -> list[int]:
    """Return the ids of the tokens with one of these texts.

    Raises:
        ParameterError: a text that is no token.
    """
    found: list[int] = []
    if texts:
        known, names = vocabulary_of(binding.model, binding.tokenizer), binding.tokenizer.get_vocab()
        for text in texts:
            ids = {*known.ids_of.get(text.encode(), ()), *([names[text]] if names.get(text) in known.special else [])}
            if not ids:
                raise ParameterError("xtc", "protect", "texts that are one token each", text)
            found += sorted(ids)
    return found


class TopNSigma(_Truncation):
    """Top-n-sigma, arXiv:2411.07641, as `top_n_sigma` computes it.

    Args:
        n: number of standard deviations of the logits; 0 or less returns the scores unchanged.
        min_keep: number of tokens that are kept at least.
        settings: the settings of the call; None: no beams.

    Example:
        >>> import torch
        >>> TopNSigma(n=1.7)(torch.tensor([[7]]), torch.tensor([[3.0, 1.0, 0.0, 0.0]]))
        tensor([[3., 1., -inf, -inf]])
    """

    @checked
    def __init__(
        self,
        *,
        n: Annotated[
            float, number("keep logits this many standard deviations below the largest; 0 or less: all", neutral=0)
        ] = 1.0,
        min_keep: Keep = 1,
        settings: BoundSettings = None,
    ) -> None:
        super().__init__(min_keep, settings)
        self.n = n

    @classmethod
    def bind(cls, binding: Binding, *, n: float, min_keep: int) -> TopNSigma:
        """Return the truncation with the settings of the call."""
        return cls(n=n, min_keep=min_keep, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``."""
        return top_n_sigma(scores, n=self.n, min_keep=self._least)


class PLess(_Truncation):
    """P-less sampling, arXiv:2509.23234, as `p_less` computes it. It has no strength, so no value is neutral.

    Args:
        normalized: lower the threshold, which keeps more tokens.
        min_keep: number of tokens that are kept at least.
        settings: the settings of the call; None: no beams.

    Example:
        >>> import torch
        >>> PLess()(torch.tensor([[7]]), torch.tensor([[0.5, 0.4, 0.1]]).log()).exp()
        tensor([[0.5000, 0.0000, 0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        normalized: Annotated[bool, option("lower the threshold L to (V L - 1) / (V - 1), V the vocabulary")] = False,
        min_keep: Keep = 1,
        settings: BoundSettings = None,
    ) -> None:
        super().__init__(min_keep, settings)
        self.normalized = normalized

    @classmethod
    def bind(cls, binding: Binding, *, normalized: bool, min_keep: int) -> PLess:
        """Return the truncation with the settings of the call."""
        return cls(normalized=normalized, min_keep=min_keep, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``."""
        return p_less(scores, normalized=self.normalized, min_keep=self._least)


class TopA(_Truncation):
    """Top-a, as `top_a` computes it.

    Args:
        a: factor of the squared largest probability, 0 to 1; 0 returns the scores unchanged.
        min_keep: number of tokens that are kept at least.
        settings: the settings of the call; None: no beams.

    Example:
        >>> import torch
        >>> TopA(a=0.5)(torch.tensor([[7]]), torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()).exp()
        tensor([[0.5000, 0.3000, 0.1500, 0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        a: Annotated[
            float, number("keep probabilities of at least this times the squared largest one", ge=0, le=1, neutral=0)
        ] = 0.2,
        min_keep: Keep = 1,
        settings: BoundSettings = None,
    ) -> None:
        super().__init__(min_keep, settings)
        self.a = a

    @classmethod
    def bind(cls, binding: Binding, *, a: float, min_keep: int) -> TopA:
        """Return the truncation with the settings of the call."""
        return cls(a=a, min_keep=min_keep, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``."""
        return top_a(scores, a=self.a, min_keep=self._least)


class TailFree(_Truncation):
    """Tail free sampling, as `tail_free` computes it.

    Args:
        z: share of the second differences of the sorted probabilities, 0 to 1; 1 returns the scores unchanged.
        min_keep: number of tokens that are kept at least.
        settings: the settings of the call; None: no beams.

    Example:
        >>> import torch
        >>> TailFree(z=0.8)(torch.tensor([[7]]), torch.tensor([[0.6, 0.2, 0.1, 0.1]]).log()).exp()
        tensor([[0.6000, 0.0000, 0.0000, 0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        z: Annotated[
            float, number("keep the tokens before this share of the second differences", ge=0, le=1, neutral=1)
        ] = 0.95,
        min_keep: Keep = 1,
        settings: BoundSettings = None,
    ) -> None:
        super().__init__(min_keep, settings)
        self.z = z

    @classmethod
    def bind(cls, binding: Binding, *, z: float, min_keep: int) -> TailFree:
        """Return the truncation with the settings of the call."""
        return cls(z=z, min_keep=min_keep, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the removed tokens at -inf, ``[rows, vocab]``."""
        return tail_free(scores, z=self.z, min_keep=self._least)
