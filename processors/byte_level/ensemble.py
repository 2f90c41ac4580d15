"""Ensemble of byte models: any number of models, whatever their tokenizers, choose each byte together.

The formulas and their sources are in `logitkit.processors.byte_level.fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.byte_level.evidence import Evidence
from logitkit.processors.byte_level.fusion import Fuse, fuse_distributions, normalised_weights
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.byte_models import byte_helpers, main_byte_model
from logitkit.processors.engine.scores import fit, with_infinite_masks
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace

Weights = Annotated[
    list[float] | None, option("one weight a model, the generating model's first, >= 0; None: equal weights")
]


class ByteEnsemble(LogitsProcessor):
    """Ensemble of byte models; the generating model is a `ByteModel`.

    A byte that the scores make impossible stays impossible.

    Args:
        weights: one for each model, the generating model's first, ``>= 0``; None: equal weights.
        fuse: ``mixture``, ``product`` or ``sequence``; see `fuse_distributions`.
        helpers: streams of the other models, with logits ``[rows, 257]``.
        evidence: for ``sequence``, a function from rows to the log-probability in nats of each row's continuation
            under each model, ``[models, rows]``.
        trace: receives the weight of the generating model at each step of ``sequence``.

    Raises:
        ParameterError: weights that do not fit the models; ``sequence`` with helpers and without evidence.

    >>> ensemble = ByteEnsemble(helpers=[lambda ids: torch.tensor([[0.25, 0.75]]).log()])
    >>> ensemble(torch.tensor([[97]]), torch.tensor([[0.5, 0.5]]).log()).exp()
    tensor([[0.3750, 0.6250]])
    """

    order = ("models", "weights", "fuse")

    @checked
    def __init__(
        self,
        *,
        weights: Weights = None,
        fuse: Annotated[
            Fuse,
            option("mixture or product of next-byte distributions; sequence: mixture of distributions over texts"),
        ] = "mixture",
        helpers: Annotated[Sequence[StreamLike], Resource()],
        evidence: Annotated[Callable[[Tensor], Tensor] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        shares = normalised_weights(weights, 1 + len(helpers))
        if fuse == "sequence" and helpers and evidence is None:
            raise ParameterError("byte_ensemble", "evidence", "given with fuse='sequence'", None)
        self.helpers = tuple(as_stream(helper) for helper in helpers)
        self.fuse, self.evidence, self.trace = fuse, evidence, trace
        self.log_weights = torch.tensor(shares, dtype=torch.float64).log()

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Annotated[
            list[str], option("the other models: names passed to bind, known models, hub ids or folders; [] for none")
        ],
        weights: Weights,
        fuse: Fuse,
    ) -> ByteEnsemble:
        """Return the processor with a reader for each other model.

        The weight of a model that is the generating model is added to the generating model's weight.

        Raises:
            ModelError: the generating model or its tokenizer is not over bytes.
        """
        main = main_byte_model(binding, "byte_ensemble")
        main_weight, *other_weights = normalised_weights(weights, 1 + len(models))
        helpers: list[tuple[str, ByteModel, float]] = []
        for (name, model), weight in zip(byte_helpers(binding, "byte_ensemble", models), other_weights, strict=True):
            if model is main:
                main_weight += weight
            elif weight > 0:
                helpers.append((name, model, weight))
        if models and not helpers:
            reason = "the generating model has all the weight"
            binding.no_effect["byte_ensemble"] = (reason, "name other models, or leave byte_ensemble out")
        own = binding.own_prompts()
        return cls(
            weights=[main_weight, *(weight for _, _, weight in helpers)],
            fuse=fuse,
            helpers=[binding.reader(own, model, label=name) for name, model, _ in helpers],
            evidence=Evidence([main, *(model for _, model, _ in helpers)], binding.prompts),
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``; without helpers, the scores."""
        if not self.helpers:
            return scores
        helper_logits = [fit(helper(input_ids), scores.shape[-1]) for helper in self.helpers]
        own = with_infinite_masks(scores)
        distributions = torch.stack([own, *helper_logits]).float().log_softmax(-1)
        log_weights = self.log_weights.to(scores.device)
        if self.fuse == "sequence" and self.evidence is not None:
            log_weights = log_weights[:, None] + self.evidence(input_ids)
            if self.trace is not None:
                self.trace.note(weight_main=log_weights.softmax(0)[0])
        allowed = own != -torch.inf
        return fuse_distributions(distributions, log_weights, self.fuse, allowed=allowed).to(scores.dtype)
