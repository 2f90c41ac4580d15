"""Controllers: samplers whose strength follows from the tokens already written.

The state of a controller is a fold over the row: it depends on the log-probabilities that the past tokens had at this
place of the chain. The states come from `History.folded`, which caches them by prefix and computes them again on a
miss, so beams, assisted decoding, rewound rows and a reused call give what a fresh call gives.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, number
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings
from logitkit.processors.engine.history import History
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import is_impossible, with_infinite_masks

WIDTH, PEAK, SHARPNESS = 0.3, 5.0, 10.0  # shape of adaptive_p, as in llama.cpp
SLOWEST = 0.99  # largest decay of adaptive_p, as in llama.cpp
ROUNDING = 1e-6  # bits: the rounding of scores in fp32, so that a token of p = 1/4 stays at a limit of 2 bits

Tau = Annotated[float, number("target surprise of the tokens, in bits", ge=0, neutral=math.inf, infinite=True)]
Eta = Annotated[float, number("learning rate: share of the error by which the limit moves", ge=0)]
Target = Annotated[float, number("target probability of the chosen tokens; below 0: off", le=1, neutral=-1)]
Decay = Annotated[float, number("weight that a past token keeps at each step; above 0.99 it is 0.99", ge=0, le=1)]
PastProbabilities = Annotated[History, Resource()]


def mirostat_kept(logp: Tensor, limit: Tensor, keep: int) -> Tensor:
    """Return which tokens mirostat keeps: those whose surprise is at most the limit, and the likeliest ``keep``.

    Args:
        logp: log-probabilities in nats, ``[rows, vocab]``.
        limit: the limit mu of each row in bits, ``[rows]``.
        keep: number of tokens kept at least, as far as so many are possible; tokens that tie with the last are kept.

    Returns:
        bool ``[rows, vocab]``.

    Example:
        >>> logp = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
        >>> mirostat_kept(logp, torch.tensor([1.5]), 1)
        tensor([[ True, False, False, False]])
        >>> mirostat_kept(logp, torch.tensor([2.0]), 1)
        tensor([[ True,  True,  True, False]])
    """
    least = logp.topk(min(keep, logp.shape[-1])).values[:, -1:]
    bound = torch.minimum(least, -(limit[:, None] + ROUNDING) * math.log(2))
    return (logp >= bound) & (logp > -torch.inf)


@dataclass(frozen=True, eq=False)
class MirostatLimit:
    """The limit mu of mirostat as a fold: ``mu_1 = 2 tau``, ``mu <- mu - eta (s - tau)``.

    The surprise s of a token is that under the kept tokens, renormalised; a token that mirostat had removed, as beams
    and later steps may choose, counts with its probability before the removal. A token that the preceding steps made
    impossible changes nothing.

    Args:
        tau: target surprise, bits.
        eta: learning rate.
        settings: the settings of the call; beams keep more tokens.
    """

    tau: float
    eta: float
    settings: BoundSettings = None

    @property
    def key(self) -> Hashable:
        """Number of tokens kept at least: 1; under beams one more than there are end tokens, and at least 2."""
        return 1 if self.settings is None else self.settings.least_kept(1)

    def initial(self) -> Tensor:
        """Return twice the target, float64 ``[1]``."""
        return torch.tensor([2 * self.tau], dtype=torch.float64)

    def kept(self, logp: Tensor, limit: Tensor) -> Tensor:
        """Return which tokens are kept, bool ``[rows, vocab]``; arguments as in `mirostat_kept`."""
        keep = self.key
        assert isinstance(keep, int)
        return mirostat_kept(logp, limit, keep)

    def update(self, states: Tensor, logp: Tensor, tokens: Tensor) -> Tensor:
        """Return the limits after one more token, float64 ``[rows, 1]``; see `Fold.update`."""
        kept = self.kept(logp, states[:, 0])
        total = logp.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
        place = tokens[:, None]
        own = logp.gather(1, place)  # [rows, 1]
        surprise = torch.where(kept.gather(1, place), total - own, -own) / math.log(2)
        return torch.where(torch.isfinite(own), states - self.eta * (surprise - self.tau), states)


class Mirostat(LogitsProcessor):
    """Keep the mean surprise of the chosen tokens near a target (mirostat version 2, arXiv:2007.14966, algorithm 2).

    Tokens whose surprise ``-log2 p`` exceeds a limit are removed. The limit starts at ``2 tau`` and falls when the
    chosen token surprised more than ``tau`` bits, and rises when it surprised less.

    Args:
        tau: target surprise in bits, at least 0; at infinity the scores are returned unchanged.
        eta: learning rate, at least 0; 0 keeps the limit at ``2 tau``.
        history: past probabilities, from `Binding.history`.
        settings: the settings of the call; None: no beams.

    Raises:
        ModelError: at a call, where past probabilities are not known and there is no model to compute them.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = logitkit.chain("mirostat(tau=3.0)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
        >>> scores = tiny_model()(call.prompts.ids).logits[:, -1]
        >>> kept = call.composite(call.prompts.ids, scores) > -torch.inf
        >>> bool((-scores.log_softmax(-1)[kept] / math.log(2) <= 6.0).all())  # bits; the first limit is 2 tau
        True
    """

    @checked
    def __init__(
        self, *, tau: Tau = 5.0, eta: Eta = 0.1, history: PastProbabilities, settings: BoundSettings = None
    ) -> None:
        self.tau, self.eta = tau, eta
        self._limit = MirostatLimit(tau, eta, settings)
        self.limits = history.folded(self._limit)

    @classmethod
    def bind(cls, binding: Binding, *, tau: float, eta: float) -> Mirostat:
        """Return the processor with the past probabilities of the call."""
        return cls(tau=tau, eta=eta, history=binding.history, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with too surprising tokens at -inf, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        if math.isinf(self.tau):
            return scores
        limits = self.limits(input_ids)[:, 0]
        logp = with_infinite_masks(scores).double().log_softmax(-1)
        return scores.masked_fill(~self._limit.kept(logp, limits), -torch.inf)


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """The decaying sums of adaptive_p as a fold: ``S <- p + decay S`` and ``W <- 1 + decay W``.

    Args:
        target: target probability; the first mean ``S / W`` is the target.
        decay: below 1.
    """

    target: float
    decay: float
    key: Hashable = None

    def initial(self) -> Tensor:
        """Return the sums before the first token, float64 ``[2]``: those of an endless row at the target."""
        return torch.tensor([self.target, 1.0], dtype=torch.float64) / (1 - self.decay)

    def update(self, states: Tensor, logp: Tensor, tokens: Tensor) -> Tensor:
        """Return the sums after one more token, float64 ``[rows, 2]``; see `Fold.update`."""
        chosen = logp.gather(1, tokens[:, None]).exp()  # [rows, 1]
        return torch.cat([chosen, torch.ones_like(chosen)], dim=1) + self.decay * states


def adaptive_p_scores(probabilities: Tensor, aim: Tensor) -> Tensor:
    """Return the scores of adaptive_p: ``5 - 10 d^2 / (1 + d)`` with ``d = |p - aim| / 0.3``.

    Args:
        probabilities: ``[rows, vocab]``.
        aim: the probability with the largest score in each row, ``[rows]``.

    Example:
        >>> adaptive_p_scores(torch.tensor([[0.5, 0.2]]), torch.tensor([0.5]))
        tensor([[5., 0.]])
    """
    distance = (probabilities - aim[:, None]).abs() / WIDTH
    return PEAK - SHARPNESS * distance.square() / (1 + distance)


class AdaptiveP(LogitsProcessor):
    """Prefer tokens whose probability is near a target, and correct for the tokens already chosen (llama.cpp).

    With the decaying mean m of the probabilities of the chosen tokens, the scores are highest at the probability
    ``2 target - m``, clipped to 0 to 1. Tokens far from it keep a small probability, so a truncation such as ``min_p``
    should stand before this step.

    Args:
        target: target probability, at most 1; below 0 the scores are returned unchanged.
        decay: from 0 to 1; above 0.99 it acts as 0.99, as in llama.cpp.
        history: past probabilities, from `Binding.history`.

    Raises:
        ModelError: at a call, where past probabilities are not known and there is no model to compute them.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = logitkit.chain("adaptive_p(target=0.5)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
        >>> scores = torch.full((1, 272), -torch.inf)
        >>> scores[0, :2] = torch.tensor([0.5, 0.5]).log()
        >>> call.composite(call.prompts.ids, scores)[0, :2]  # the first aim is the target itself
        tensor([5., 5.])
    """

    @checked
    def __init__(self, *, target: Target = 0.5, decay: Decay = 0.9, history: PastProbabilities) -> None:
        self.target, self.decay = target, min(decay, SLOWEST)
        self._sums = history.folded(WeightedMean(target, self.decay))

    @classmethod
    def bind(cls, binding: Binding, *, target: float, decay: float) -> AdaptiveP:
        """Return the processor with the past probabilities of the call."""
        return cls(target=target, decay=decay, history=binding.history)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores that are high near the aim, ``[rows, vocab]``; impossible tokens stay impossible.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        if self.target < 0:
            return scores
        total, weight = self._sums(input_ids).unbind(-1)
        aim = (2 * self.target - total / weight).clamp(0, 1)
        adapted = adaptive_p_scores(log_probabilities(scores).exp(), aim.float())
        return adapted.to(scores.dtype).masked_fill(is_impossible(scores), -torch.inf)
