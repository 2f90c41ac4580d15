"""DeePEn: models are averaged over anchor tokens, and the main model's logits are moved towards the average.

Huang et al., arXiv:2404.12715. Each model's next-token distribution p becomes p T, a distribution over anchor tokens
that all models share (`logitkit.processors.ensemble.representation`). The distributions over anchors are averaged.
A few AdamW steps then move the main model's logits so that their own distribution over anchors comes near the average
(KL divergence). Adam moves a logit by at most about the learning rate in a step, so the rate bounds how far the
logits move.

Departures from the released code:

- Distributions are cut to their ``topk`` likeliest tokens, and the rows of T are computed for these tokens only. The
  code keeps T whole, which for 262144 tokens and 46000 anchors takes 48 GB.
- Only the main model's ``topk`` tokens move.
- The gradient is not divided by the number of anchors. Adam does not depend on this scale, except through its
  epsilon, which is here relative to the whole sum.
- Weight decay acts on log-probabilities.
- Rows do not influence each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import fit, is_impossible, with_infinite_masks
from logitkit.processors.engine.streams import Stream
from logitkit.processors.ensemble.helper_models import find_helper_models
from logitkit.processors.ensemble.options import HelperPrompts, Models, checked_weights
from logitkit.processors.ensemble.representation import Representation, shared_tokens

DECAY = 0.01  # weight decay of AdamW, as in the released code
BETAS = 0.9, 0.999
EPSILON = 1e-8
HALF_PERIOD = 10  # steps in which the rate falls to a quarter, as in the released code
LEAST_PROBABILITY = 1e-12  # a probability over anchors counts as at least this


def search(logits: Tensor, rows: Tensor, wanted: Tensor, *, rate: float, steps: int = 5) -> Tensor:
    """Move logits so that their distribution over anchors comes near a wanted one; all rows at once.

    AdamW on KL(wanted || softmax(logits) T) of each row; the rate of a step is `cosine_rate`.

    Args:
        logits: ``[batch, tokens]``; -inf stays -inf.
        rows: the rows of T of these tokens, ``[batch, tokens, anchors]``.
        wanted: distribution over anchors, ``[batch, anchors]``.
        rate: learning rate of the first step, in nats, ``>= 0``; 0 returns ``logits``.
        steps: number of steps.

    Returns:
        New logits, same shape.

    >>> T, wanted = torch.eye(2)[None], torch.tensor([[0.9, 0.1]])
    >>> search(torch.zeros(1, 2), T, wanted, rate=0.1, steps=1).round(decimals=2)
    tensor([[ 0.1000, -0.1000]])
    """
    if is_neutral(rate, 0):
        return logits
    possible = ~is_impossible(logits)
    z = with_infinite_masks(logits).float()
    first = second = torch.zeros_like(z)
    for step in range(1, steps + 1):
        p = z.softmax(-1)  # [batch, tokens]
        q = torch.einsum("bt,bta->ba", p, rows).clamp_min(LEAST_PROBABILITY)
        slope = -torch.einsum("bta,ba->bt", rows, wanted / q)  # d KL / d p
        gradient = p * (slope - (p * slope).sum(-1, keepdim=True))
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        step_rate = cosine_rate(rate, step)
        move = (first / (1 - BETAS[0] ** step)) / ((second / (1 - BETAS[1] ** step)).sqrt() + EPSILON)
        z = torch.where(possible, z * (1 - step_rate * DECAY) - step_rate * move, z)
    return z


def cosine_rate(rate: float, step: int) -> float:
    """Return the learning rate of a step: it falls from ``rate`` to a quarter of it along a half cosine.

    Args:
        rate: of the first step.
        step: number of the step, from 1; the quarter is reached after `HALF_PERIOD` steps.

    >>> cosine_rate(0.2, 1), round(cosine_rate(0.2, 11), 6)
    (0.2, 0.05)
    """
    cosine = torch.cos(torch.tensor(torch.pi * (step - 1) / HALF_PERIOD))
    return rate / 4 + (rate - rate / 4) * (1 + float(cosine)) / 2


class RepresentedHelper(NamedTuple):
    """A helper model of DeePEn.

    Attributes:
        read: from rows of main tokens ``[rows, length]`` to logits in the helper's vocabulary, ``[rows, own vocab]``.
        representation: of the helper's tokens.

    >>> space = Representation(torch.eye(2), anchors=torch.tensor([0, 1]))
    >>> RepresentedHelper(lambda rows: torch.zeros(len(rows), 2), space).representation is space
    True
    """

    read: Stream | Callable[[Tensor], Tensor]
    representation: Representation


class Deepen(LogitsProcessor):
    """DeePEn (arXiv:2404.12715); the generating model is the main model.

    Args:
        rate: learning rate of the first step, in nats, ``>= 0``; about how far a logit may move in a step.
        steps: number of steps.
        weights: one for each model, the main model's first, ``>= 0``, not all 0; None: equal weights.
        topk: number of likeliest tokens of each model to represent, and of the main model to move.
        main: representation of the main model's tokens.
        helpers: the other models with their representations.

    Raises:
        ParameterError: weights that do not fit the models.

    >>> space = Representation(torch.eye(2), anchors=torch.tensor([0, 1]))
    >>> helper = RepresentedHelper(lambda rows: torch.tensor([[0.0, 4.0]]), space)
    >>> scores = torch.tensor([[0.5, 0.5]]).log()
    >>> Deepen(main=space, helpers=[helper])(torch.zeros(1, 1), scores).argmax(-1)
    tensor([1])
    """

    order = ("models",)

    @checked
    def __init__(
        self,
        *,
        rate: Annotated[
            float, number("learning rate: about the largest move of a logit in a step, in nats", ge=0, neutral=0)
        ] = 0.15,
        steps: Annotated[int, whole("number of optimiser steps", ge=0, neutral=0)] = 5,
        weights: Annotated[
            list[float] | None, option("one weight a model, the main model's first, >= 0; None: equal weights")
        ] = None,
        topk: Annotated[int, whole("number of likeliest tokens of each model to represent and move", ge=1)] = 64,
        main: Annotated[Representation, Resource()],
        helpers: Annotated[Sequence[RepresentedHelper], Resource()],
    ) -> None:
        self.rate, self.steps, self.topk = rate, steps, topk
        self.weights = checked_weights("deepen", weights, 1 + len(helpers))
        self.main, self.helpers = main, tuple(helpers)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Models,
        prompts: HelperPrompts = None,
        anchors: Annotated[
            int, whole("greatest number of anchors: shared tokens, those of the lowest main ids", ge=2)
        ] = 4096,
        rate: float,
        steps: int,
        weights: list[float] | None,
        topk: int,
    ) -> Deepen:
        """Return the processor with a reader and a representation for each helper.

        Raises:
            ModelError: fewer than two shared tokens; a model without input embeddings.
        """
        main = AlignmentVocabulary.of(binding.model, binding.tokenizer)
        found = find_helper_models(binding, "deepen", models, prompts)
        vocabularies = [AlignmentVocabulary.of(helper.model, helper.tokenizer) for helper in found]
        main_ids, helper_ids = shared_tokens(main, vocabularies, anchors)
        if len(main_ids) < 2:
            raise ModelError(f"deepen: models must share at least 2 tokens, got {len(main_ids)}; use ensemble")
        binding.trace.notices.append(f"deepen: {len(main_ids)} anchors")
        space = Representation(_embeddings(main), main_ids)
        helpers = [
            RepresentedHelper(helper.read, Representation(_embeddings(vocabulary), ids))
            for helper, vocabulary, ids in zip(found, vocabularies, helper_ids, strict=True)
        ]
        weights = checked_weights("deepen", weights, 1 + len(helpers))
        if all(helper.is_main for helper in found):  # the average is the main model's own distribution
            weights, helpers = None, []
        return cls(rate=rate, steps=steps, weights=weights, topk=topk, main=space, helpers=helpers)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities with the likeliest tokens moved, ``[rows, vocab]``."""
        if is_neutral(self.rate, 0) or self.steps == 0 or not self.helpers or sum(self.weights[1:]) <= 0:
            return scores
        logp = log_probabilities(scores)
        best, ids = logp.topk(min(self.topk, logp.shape[-1]), dim=-1)
        size = len(self.main.embeddings)
        best = best.masked_fill(ids >= size, -torch.inf)  # scores may be wider than the embeddings
        rows = self.main(ids.clamp_max(size - 1))
        wanted = self.weights[0] * torch.einsum("bt,bta->ba", _softmax(best), rows)
        for (read, representation), weight in zip(self.helpers, self.weights[1:], strict=True):
            if weight > 0:
                wanted = wanted + weight * _over_anchors(read(input_ids), representation, self.topk)
        moved = search(best, rows, wanted / sum(self.weights), rate=self.rate, steps=self.steps)
        merged = torch.where(best > -torch.inf, moved, logp.gather(-1, ids))
        return logp.scatter(-1, ids, merged).log_softmax(-1).to(scores.dtype)


def _over_anchors(logits: Tensor, representation: Representation, topk: int) -> Tensor:
    """Return a helper's distribution over anchors, ``[rows, anchors]``."""
    logits = fit(logits, len(representation.embeddings))
    best, ids = logits.topk(min(topk, logits.shape[-1]), dim=-1)
    return torch.einsum("bt,bta->ba", best.softmax(-1), representation(ids))


def _softmax(logits: Tensor) -> Tensor:
    """Return probabilities; equal ones for a row of -inf alone."""
    possible = (logits > -torch.inf).any(-1, keepdim=True)
    return torch.where(possible, logits, 0).softmax(-1)


def _embeddings(vocabulary: AlignmentVocabulary) -> Tensor:
    """Return the input embeddings of a model.

    Raises:
        ModelError: the model has none, as a `ByteModel`.
    """
    if vocabulary.embeddings is None:
        raise ModelError("deepen: every model must have input embeddings, got a ByteModel; choose ensemble or core")
    return vocabulary.embeddings
