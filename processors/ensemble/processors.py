"""Ensembles of models with different tokenizers: the plain ensemble and CoRE.

Each helper reads the rows in its own tokens under its own prompt (`logitkit.processors.ensemble.helper_models`). Its
probabilities are translated into the main vocabulary (`logitkit.processors.ensemble.member_probabilities`) and
combined there by a pure function, `fuse` or `core`. The result is a normalised distribution, so it can be sampled and
searched like the scores of one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings
from logitkit.processors.engine.log_probabilities import mark_normalised
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ensemble import consistency
from logitkit.processors.ensemble.fusion import Fuse, fuse
from logitkit.processors.ensemble.member_probabilities import (
    Member,
    fit_probabilities,
    member_probabilities,
    reachable_tokens,
)
from logitkit.processors.ensemble.members import find_members
from logitkit.processors.ensemble.options import Align, Gate, HelperPrompts, Models, TopK, checked_weights
from logitkit.processors.ensemble.spelling_guard import SpellingGuard
from logitkit.processors.model_facts import id_tuple


class Ensemble(LogitsProcessor):
    """Mean of models with different tokenizers (GaC, UniTE or MinED, by ``align``).

    The generating model is the main model. With ``gate`` below 1, helpers are used only where the main model is
    unsure (GaC, arXiv:2406.12585); a step at which the main model is sure of every row needs no helper forward.

    Args:
        weights: one for each model, the main model's first, ``>= 0``, not all 0; None: equal weights.
        fuse: how distributions are combined; see `fuse`.
        topk: number of likeliest tokens of each model that are used; 0: all.
        gate: a row is changed where the main model's largest probability is at most this, 0 to 1.
        helpers: the other models.
        trace: receives, at each step, the share of each helper's probability that its alignment loses.

    Raises:
        ParameterError: weights that do not fit the models.

    >>> ensemble = Ensemble(helpers=[Member(name="flat", read=lambda rows: torch.zeros(len(rows), 2))])
    >>> ensemble(torch.zeros(1, 1), torch.tensor([[0.75, 0.25]]).log()).exp()
    tensor([[0.6250, 0.3750]])
    """

    order = ("models", "align", "weights")

    @checked
    def __init__(
        self,
        *,
        weights: Annotated[
            list[float] | None, option("one weight a model, the main model's first, >= 0; None: equal weights")
        ] = None,
        fuse: Annotated[Fuse, option("how distributions are combined")] = "arithmetic",
        topk: TopK = 0,
        gate: Gate = 1.0,
        helpers: Annotated[Sequence[Member], Resource()],
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        all_weights = checked_weights("ensemble", weights, 1 + len(helpers))
        weighted = [(helper, weight) for helper, weight in zip(helpers, all_weights[1:], strict=True) if weight > 0]
        self.helpers = tuple(helper for helper, _ in weighted)
        self.weights = (all_weights[0], *(weight for _, weight in weighted))
        self.fuse, self.topk, self.gate, self.trace = fuse, topk, gate, trace
        self._reachable: tuple[list[Alignment | None], list[Tensor | None]] | None = None

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Models,
        align: Align = "gac",
        prompts: HelperPrompts = None,
        weights: list[float] | None,
        fuse: Fuse,
        topk: int,
        gate: float,
    ) -> Ensemble:
        """Return the processor with a reader and an alignment for each helper."""
        helpers = find_members(binding, "ensemble", models, align, prompts)
        return cls(weights=weights, fuse=fuse, topk=topk, gate=gate, helpers=helpers, trace=binding.trace)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``; rows with a closed gate keep their scores."""
        gated = _gated_rows("ensemble", self.helpers, self.gate, scores, self.trace)
        if gated is None:
            return scores
        main, helpers = member_probabilities(input_ids, scores, self.helpers, topk=self.topk)
        if self.trace is not None:
            self.trace.note(**_lost(self.helpers, helpers))
        fused = fuse(main, helpers, self.weights, self.fuse, self.reachable(scores.shape[-1]))
        return torch.where(gated[:, None], mark_normalised(fused).to(scores.dtype), scores)

    def reachable(self, width: int) -> list[Tensor | None]:
        """Return the main tokens that each helper can give probability, computed once for each set of end tokens."""
        alignments = [helper.current().alignment for helper in self.helpers]
        known = self._reachable
        if known is None or any(one is not other for one, other in zip(known[0], alignments, strict=True)):
            known = self._reachable = alignments, [reachable_tokens(helper) for helper in self.helpers]
        return [None if mask is None else fit_probabilities(mask, width) for mask in known[1]]


class Core(LogitsProcessor):
    """CoRE (arXiv:2510.13855) over models with different tokenizers; the formula is `core`.

    Args:
        kernel, sharpness: how consistency falls with disagreement; see `token_consistency`.
        support: tokens over which the scores of a model are summed, see `core`; None: as the preset.
        main_floor: least weight of the main model, 0 to 1; None: as the preset.
        preset: the values of all parameters that are None; see `consistency.PRESETS`.
        guard: keep the main model's row where the ensemble only spells its choice differently; see `SpellingGuard`.
        filters, agreement, mean_one: see `consistency.Variant`; None: as the preset.
        topk: number of likeliest tokens of each model that are used; 0: all; None: as the preset.
        gate: a row is changed where the main model's largest probability is at most this, 0 to 1.
        helpers: the other models.
        token_bytes: bytes of each main token, for the guard; None for a special token.
        end_tokens: main tokens that end a text, for the guard.
        settings: the settings of the call; the end tokens of `generate` replace ``end_tokens``.
        trace: receives weights, disagreements and filtered tokens at each recorded step.

    >>> flat = Member(name="flat", read=lambda rows: torch.zeros(len(rows), 2))
    >>> scores = torch.tensor([[0.75, 0.25]]).log()
    >>> processor = Core(helpers=[flat], guard=False)
    >>> expected = consistency.core(torch.tensor([[0.75, 0.25]]), [torch.tensor([[0.5, 0.5]])])
    >>> torch.allclose(processor(torch.zeros(1, 1), scores), expected)
    True
    """

    order = ("models", "align", "kernel", "main_floor")

    @checked
    def __init__(  # Over 40 lines: each parameter of the chain is an argument with its own rule and help.
        self,
        *,
        kernel: Annotated[consistency.Kernel, option("function from disagreement to consistency")] = "rbf",
        main_floor: Annotated[
            float | None, number("least weight of the main model; None: as the preset", ge=0, le=1, neutral=1)
        ] = None,
        preset: Annotated[
            consistency.PresetName,
            option("released: the code on generation tasks; choice: on multiple choice; published: the paper's figure"),
        ] = "released",
        guard: Annotated[
            bool | None,
            option("keep the main model's row where only the spelling differs, or where it ends; None: as the preset"),
        ] = None,
        filters: Annotated[
            bool | None, option("filter helpers' tokens by their consistency; None: as the preset")
        ] = None,
        agreement: Annotated[
            bool | None, option("weigh models by agreement and certainty, not certainty alone; None: as the preset")
        ] = None,
        mean_one: Annotated[bool | None, option("scale token consistencies to mean 1; None: as the preset")] = None,
        sharpness: Annotated[float | None, number("sharpness of the kernel; None: the paper's", gt=0)] = None,
        support: Annotated[
            consistency.Support | None,
            option(
                "tokens over which scores are summed: own: the main model's, and for a helper its own too; "
                "union: those of all models; None: as the preset"
            ),
        ] = None,
        topk: Annotated[
            int | None, whole("number of likeliest tokens of each model to use; 0: all; None: as the preset", ge=0)
        ] = None,
        gate: Gate = 1.0,
        helpers: Annotated[Sequence[Member], Resource()],
        token_bytes: Annotated[Sequence[bytes | None], Resource()] = (),
        end_tokens: Annotated[Sequence[int], Resource()] = (),
        settings: BoundSettings = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        chosen = consistency.PRESETS[preset].replaced(
            main_floor=main_floor,
            guard=guard,
            topk=topk,
            filters=filters,
            agreement=agreement,
            mean_one=mean_one,
            support=support,
        )
        self.formula: dict[str, Any] = {
            "kernel": kernel,
            "main_floor": chosen.main_floor,
            "support": chosen.support,
            "sharpness": sharpness,
            "variant": chosen.variant,
        }
        self.topk, self.gate, self.trace = chosen.topk or 0, gate, trace
        self.guard = SpellingGuard(token_bytes) if chosen.guard else None
        self.helpers = () if is_neutral(chosen.main_floor, 1) else tuple(helpers)
        self._end_tokens, self._settings = tuple(end_tokens), settings

    @classmethod
    def bind(  # More than 8 arguments: each parameter of the chain is one, as in __init__.
        cls,
        binding: Binding,
        *,
        models: Models,
        align: Align = "gac",
        prompts: HelperPrompts = None,
        kernel: consistency.Kernel,
        main_floor: float | None,
        preset: consistency.PresetName,
        guard: bool | None,
        filters: bool | None,
        agreement: bool | None,
        mean_one: bool | None,
        sharpness: float | None,
        support: consistency.Support | None,
        topk: int | None,
        gate: float,
    ) -> Core:
        """Return the processor with a reader and an alignment for each helper."""
        main = AlignmentVocabulary.of(binding.model, binding.tokenizer)
        return cls(
            kernel=kernel,
            main_floor=main_floor,
            preset=preset,
            guard=guard,
            filters=filters,
            agreement=agreement,
            mean_one=mean_one,
            sharpness=sharpness,
            support=support,
            topk=topk,
            gate=gate,
            helpers=find_members(binding, "core", models, align, prompts),
            token_bytes=main.vocabulary.token_bytes,
            end_tokens=id_tuple(binding.tokenizer.eos_token_id),
            settings=binding.settings,
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``.

        Rows with a closed gate, and rows that the guard holds, keep their scores.
        """
        changed = _gated_rows("core", self.helpers, self.gate, scores, self.trace)
        if changed is None:
            return scores
        main, helpers = member_probabilities(input_ids, scores, self.helpers, topk=self.topk)
        logp = consistency.core(main, helpers, **self.formula)
        if self.guard is not None:
            ends = self._end_tokens if self._settings is None else self._settings.text_ends(self._end_tokens)
            changed = changed & ~self.guard.holds(scores.argmax(-1), logp.argmax(-1), end_tokens=ends)
        if self.trace is not None and self.trace.recording:
            self._note(self.trace, main, helpers)
        return torch.where(changed[:, None], mark_normalised(logp).to(scores.dtype), scores)

    def _note(self, trace: Trace, main: Tensor, helpers: Sequence[Tensor]) -> None:
        """Record the step's weights, disagreements, filtered tokens and lost probability."""
        consensus = consistency.consensus(main, helpers, **self.formula)
        trace.note(weight_main=consensus.weights[0], **_lost(self.helpers, helpers))
        for number_, helper in enumerate(self.helpers):
            values = {
                "weight": consensus.weights[1 + number_],
                "disagreement": consensus.disagreement[number_],
                "filtered": consensus.filtered[number_],
            }
            trace.note(**{f"{quantity}_{helper.name}": value for quantity, value in values.items()})


def _gated_rows(
    name: str, helpers: Sequence[Member], gate: float, scores: Tensor, trace: Trace | None
) -> Tensor | None:
    """Return the rows with an open gate, bool ``[rows]``; None where no helper can change any row."""
    if all(helper.is_main for helper in helpers) or is_neutral(gate, 0):
        return None
    if is_neutral(gate, 1):
        return torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    gated = scores.float().softmax(-1).amax(-1) <= gate
    if trace is not None:
        trace.count_fired(name, gated)
        trace.note(fired=gated)
    return gated if bool(gated.any()) else None


def _lost(members: Sequence[Member], probabilities: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the share of each helper's probability that its alignment loses, ``[rows]`` each."""
    return {f"lost_{member.name}": 1 - p.sum(-1) for member, p in zip(members, probabilities, strict=True)}
