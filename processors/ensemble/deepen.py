"""DeePEn: models meet in a space of relative representations, and the main model's logits are moved towards the mean.

Huang et al., arXiv:2404.12715. Anchors are tokens that all vocabularies share. A token is represented by how similar
its embedding is to each anchor's: T = softmax(100 R), R the cosines to the anchors with rows of length 1. A model's
distribution p becomes p T, a distribution over anchors; these are averaged; and the main model's logits take a few
AdamW steps that bring their own representation near the mean (KL divergence). Adam moves a logit by at most about the
rate a step, so the rate is a trust region, not a speed.

Departures: distributions are cut to their ``topk`` likeliest tokens, whose rows of T are computed when they are
needed (the released code keeps T whole, which for 262144 x 46000 is 48 GB); only the main model's ``topk`` tokens
move; the gradient is not divided by the number of anchors (Adam does not see the scale, its epsilon is relative to
1 / anchors there); weight decay acts on log-probabilities; rows do not influence each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.matching import exact
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import fit
from logitkit.processors.ensemble.members import readings
from logitkit.processors.ensemble.processors import Models, Prompts

SHARPNESS = 100.0  # of the softmax over anchors, as released
DECAY = 0.01  # AdamW's, as released
BETAS = 0.9, 0.999
EPSILON = 1e-8
STRETCH = 10  # steps over which the rate falls by a half cosine to a quarter, as released
LEAST = 1e-12  # a probability over anchors counts as at least this


class Representation:
    """Relative representation of a model's tokens.

    Args:
        embeddings: input embeddings, ``[vocab, width]``.
        anchors: ids of the anchors, in an order that all models share.
    """

    def __init__(self, embeddings: Tensor, anchors: Tensor) -> None:
        self.embeddings = embeddings
        self.anchors = normalize(embeddings[anchors].float(), dim=-1)  # [anchors, width]

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the rows of T, ``[..., anchors]``, for ids ``[...]``; each sums to 1."""
        cosine = normalize(self.embeddings[ids].float(), dim=-1) @ self.anchors.T
        return (SHARPNESS * normalize(cosine, dim=-1)).softmax(-1)


def search(logits: Tensor, rows: Tensor, wanted: Tensor, *, rate: float, steps: int = 5) -> Tensor:
    """Move logits so that their representation comes near the wanted one; all rows at once.

    AdamW on KL(wanted || softmax(logits) T), each row's own; the rate falls along a half cosine.

    Args:
        logits: ``[batch, tokens]``; -inf stays.
        rows: T of those tokens, ``[batch, tokens, anchors]``.
        wanted: ``[batch, anchors]``, a distribution.
        rate: of the first step, in nats; 0 returns ``logits``.
        steps: how many.

    Returns:
        New logits, same shape.
    """
    if is_neutral(rate, 0):
        return logits
    possible = logits > -torch.inf
    z = logits.float()
    first = second = torch.zeros_like(z)
    for step in range(1, steps + 1):
        p = z.softmax(-1)  # [batch, tokens]
        q = torch.einsum("bt,bta->ba", p, rows).clamp_min(LEAST)
        pull = -torch.einsum("bta,ba->bt", rows, wanted / q)  # d KL / d p
        gradient = p * (pull - (p * pull).sum(-1, keepdim=True))
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        now = cosine_rate(rate, step)
        move = (first / (1 - BETAS[0] ** step)) / ((second / (1 - BETAS[1] ** step)).sqrt() + EPSILON)
        z = torch.where(possible, z * (1 - now * DECAY) - now * move, z)
    return z


def cosine_rate(rate: float, step: int) -> float:
    """Rate of the 1-based step: a half cosine from ``rate`` to a quarter of it over `STRETCH` steps."""
    turn = torch.cos(torch.tensor(torch.pi * (step - 1) / STRETCH))
    return rate / 4 + (rate - rate / 4) * (1 + float(turn)) / 2


class Deepen(LogitsProcessor):
    """DeePEn (arXiv:2404.12715); the generating model is the main one.

    Args:
        main: representation of the generating model's tokens.
        helpers: for each helper what reads along and its representation.
    """

    order = ("models",)

    @checked
    def __init__(
        self,
        *,
        rate: Annotated[float, number("how far a logit may move in a step, in nats", ge=0, neutral=0)] = 0.15,
        steps: Annotated[int, whole("steps of the search", ge=0, neutral=0)] = 5,
        weights: Annotated[
            list[float] | None, option("one a model, the generating one first, >= 0; None: all alike")
        ] = None,
        topk: Annotated[int, whole("likeliest tokens of each model that are represented and moved", ge=1)] = 64,
        main: Annotated[Any, Resource()],
        helpers: Annotated[Sequence[tuple[Any, Any]], Resource()],
    ) -> None:
        self.rate, self.steps, self.topk = rate, steps, topk
        self.weights = [1.0] * (1 + len(helpers)) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != 1 + len(helpers) or min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
            rule = f"{1 + len(helpers)} finite numbers >= 0 (the generating model's first), not all 0"
            raise ParameterError("deepen", "weights", rule, weights)
        self.main, self.helpers = main, tuple(helpers)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Models,
        prompts: Prompts = None,
        anchors: Annotated[int, whole("shared tokens that span the space, the lowest main ids first", ge=2)] = 4096,
        **given: Any,
    ) -> Deepen:
        """Find the helpers, read along with each, and choose the anchors."""
        main = AlignmentVocabulary.of(binding.model, binding.tokenizer)
        found = readings(binding, "deepen", models, prompts)
        sides = [AlignmentVocabulary.of(reading.model, reading.tokenizer) for reading in found]
        ours, theirs = shared_tokens(main, sides, anchors)
        if len(ours) < 2:
            raise ModelError(f"deepen: models must share at least 2 tokens, got {len(ours)}; use ensemble")
        binding.trace.notices.append(f"deepen: {len(ours)} anchors")
        helpers = [
            (reading.read, Representation(_vectors(side), ids))
            for reading, side, ids in zip(found, sides, theirs, strict=True)
        ]
        made = cls(main=Representation(_vectors(main), ours), helpers=helpers, **given)
        if all(reading.same for reading in found):  # nobody says anything else
            made.helpers = ()
        return made

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities with the likeliest tokens moved, ``[rows, vocab]``."""
        if is_neutral(self.rate, 0) or self.steps == 0 or not self.helpers or sum(self.weights[1:]) <= 0:
            return scores
        logp = log_probabilities(scores)
        best, ids = logp.topk(min(self.topk, logp.shape[-1]), dim=-1)
        known = len(self.main.embeddings)
        best = best.masked_fill(ids >= known, -torch.inf)  # ids beyond the model's own have no embedding
        rows = self.main(ids.clamp_max(known - 1))
        wanted = self.weights[0] * torch.einsum("bt,bta->ba", _softmax(best), rows)
        for (read, representation), weight in zip(self.helpers, self.weights[1:], strict=True):
            if weight > 0:
                wanted = wanted + weight * _represented(read(input_ids), representation, self.topk)
        moved = search(best, rows, wanted / sum(self.weights), rate=self.rate, steps=self.steps)
        kept = torch.where(best > -torch.inf, moved, logp.gather(-1, ids))
        return logp.scatter(-1, ids, kept).log_softmax(-1).to(scores.dtype)


def shared_tokens(
    main: AlignmentVocabulary, helpers: Sequence[AlignmentVocabulary], count: int
) -> tuple[Tensor, list[Tensor]]:
    """Ids of the tokens that all vocabularies have, in each, the ``count`` of the lowest main ids."""
    maps = [dict(_pairs(helper, main)) for helper in helpers]
    ids = sorted(set(main.text_tokens()).intersection(*maps))[:count]
    return torch.tensor(ids, dtype=torch.long), [
        torch.tensor([known[i] for i in ids], dtype=torch.long) for known in maps
    ]


def _pairs(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> list[tuple[int, int]]:
    """Main id and helper id of shared tokens; of twins in the helper, the lowest id."""
    made = exact(helper, main)
    ids = (made.weights[:, 0] > 0).nonzero()[:, 0].flip(0)
    return list(zip(made.targets[ids, 0].tolist(), ids.tolist(), strict=True))


def _represented(logits: Tensor, representation: Representation, topk: int) -> Tensor:
    """A helper's distribution over anchors, ``[rows, anchors]``."""
    logits = fit(logits, len(representation.embeddings))
    best, ids = logits.topk(min(topk, logits.shape[-1]), dim=-1)
    return torch.einsum("bt,bta->ba", best.softmax(-1), representation(ids))


def _softmax(logits: Tensor) -> Tensor:
    """Probabilities, also of a row in which nothing is possible."""
    possible = (logits > -torch.inf).any(-1, keepdim=True)
    return torch.where(possible, logits, 0).softmax(-1)


def _vectors(side: AlignmentVocabulary) -> Tensor:
    """Input embeddings, which a model over bytes lacks."""
    if side.embeddings is None:
        raise ModelError("deepen: every model must have input embeddings, got a ByteModel; choose ensemble or core")
    return side.embeddings
