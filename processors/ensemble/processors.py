"""Ensembles of models with different tokenizers: a plain mean, and CoRE.

Every helper reads along in its own tokens under its own prompt (`logitkit.processors.ensemble.members`); its opinion is
translated into the main vocabulary (`logitkit.processors.alignment`) and fused there. The result is a normalised
distribution, so that sampling and beams mean what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import mark_normalised
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ensemble import consistency
from logitkit.processors.ensemble.members import Member, Texts, members, opinions

Fuse = Literal["arithmetic", "geometric", "max"]
Models = Annotated[list[str], option("helpers: names passed to bind, known models, hub ids or folders; [] none")]
Align = Annotated[
    str | list[str],
    option("exact, mined, unite, gac, embedding, bytes, a .safetensors file or a name passed to bind; or one a helper"),
]
Prompts = Annotated[
    dict[str, Texts] | None, option("own prompt of a helper, by its name; None: the prompts in its own template")
]
TopK = Annotated[
    int, whole("likeliest tokens of each model that count; 0: all (unite: 10; of an embedding helper: 320)", ge=0)
]
Gate = Annotated[float, number("ask where the main model's best probability is at most this", ge=0, le=1, neutral=0)]


def fuse(
    main: Tensor,
    helpers: Sequence[Tensor],
    weights: Sequence[float],
    how: Fuse = "arithmetic",
    reachable: Sequence[Tensor | None] = (),
) -> Tensor:
    """Combine distributions over one vocabulary.

    ``arithmetic``: the weighted mean. ``geometric``: the weighted mean of log-probabilities; a token that a helper
    cannot reach gives no evidence there, so the main model's own probability stands in. ``max``: the largest
    weighted probability.

    Args:
        main: probabilities, ``[rows, vocab]``.
        helpers: probabilities of each helper, same shape; rows may sum to less than 1.
        weights: main model first, >= 0, with a positive sum.
        how: see above.
        reachable: for each helper which tokens it can reach, bool ``[vocab]``; None or left out: all.

    Returns:
        Normalised fp32 log-probabilities. A row on which nothing is left is the main model's.
    """
    p = torch.stack([main, *helpers]).float()  # [models, rows, vocab]
    share = torch.tensor(weights, device=p.device)[:, None, None] / sum(weights)
    if how == "arithmetic":
        mixed = (share * p).sum(0).log()
    elif how == "max":
        mixed = (share * p).amax(0).log()
    else:
        logp = p.log()
        for number_, can in enumerate(reachable, start=1):
            if can is not None:
                logp[number_] = torch.where(can, logp[number_], logp[0])
        asked = [place for place, weight in enumerate(weights) if weight > 0]
        mixed = (share[asked] * logp[asked]).sum(0)
    nothing = (mixed == -torch.inf).all(-1, keepdim=True)
    return torch.where(nothing, main.log(), mixed).log_softmax(-1)


class Ensemble(LogitsProcessor):
    """Mean of models with different tokenizers (GaC, UniTE, MinED by ``align``); the generating model is the main one.

    With ``gate`` below 1 the helpers are asked only where the main model is unsure (GaC, arXiv:2406.12585);
    a step at which it is sure of every row costs nothing.
    """

    order = ("models", "align", "weights")

    @checked
    def __init__(
        self,
        *,
        weights: Annotated[
            list[float] | None, option("one a model, the generating one first, >= 0; None: all alike")
        ] = None,
        fuse: Annotated[Fuse, option("how distributions are combined")] = "arithmetic",
        topk: TopK = 0,
        gate: Gate = 1.0,
        helpers: Annotated[Sequence[Member], Resource()],
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        share = [1.0] * (1 + len(helpers)) if weights is None else [float(weight) for weight in weights]
        if len(share) != 1 + len(helpers) or min(share) < 0 or not 0 < sum(share) < float("inf"):
            rule = f"{1 + len(helpers)} finite numbers >= 0 (the generating model's first), not all 0"
            raise ParameterError("ensemble", "weights", rule, weights)
        chosen = [(helper, weight) for helper, weight in zip(helpers, share[1:], strict=True) if weight > 0]
        self.helpers = tuple(helper for helper, _ in chosen)
        self.weights = (share[0], *(weight for _, weight in chosen))
        self.fuse, self.topk, self.gate, self.trace = fuse, topk, gate, trace
        self.reachable = [_reachable(helper) for helper in self.helpers]

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Models,
        align: Align = "gac",
        prompts: Prompts = None,
        **given: Any,
    ) -> Ensemble:
        """Find the helpers and read along with each."""
        return cls(helpers=members(binding, "ensemble", models, align, prompts), trace=binding.trace, **given)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``; rows not asked about stay as they are."""
        fired = _asked("ensemble", self, scores)
        if fired is None:
            return scores
        main, said = opinions(input_ids, scores, self.helpers, topk=self.topk)
        if self.trace is not None:
            self.trace.note(**_lost(self.helpers, said))
        reachable = [None if can is None else _width(can, scores) for can in self.reachable]
        mixed = fuse(main, said, self.weights, self.fuse, reachable)
        return torch.where(fired[:, None], _finished(mixed, scores), scores)


class Core(LogitsProcessor):
    """CoRE (arXiv:2510.13855): `logitkit.processors.ensemble.consistency` over models with different tokenizers.

    Args:
        helpers: who reads along.
        token_bytes: bytes of each main token, for the guard.
        end_tokens: main tokens that end a text, for the guard.
        trace: where weights and disagreements are noted.
    """

    order = ("models", "align", "kernel", "main_floor")

    @checked
    def __init__(
        self,
        *,
        kernel: Annotated[consistency.Kernel, option("how consistency falls with disagreement")] = "rbf",
        main_floor: Annotated[
            float | None, number("least weight of the main model; None: as the preset", ge=0, le=1, neutral=1)
        ] = None,
        preset: Annotated[
            consistency.Preset, option("released: the code on generation; choice: on multiple choice; published: paper")
        ] = "released",
        guard: Annotated[
            bool | None, option("keep the main model's row where only the spelling differs, or it ends")
        ] = None,
        filters: Annotated[bool | None, option("filter helpers' tokens by their consistency")] = None,
        agreement: Annotated[bool | None, option("weigh models by agreement too, not by certainty alone")] = None,
        mean_one: Annotated[bool | None, option("scale token consistencies to mean 1")] = None,
        sharpness: Annotated[float | None, number("of the kernel; None: the paper's", gt=0)] = None,
        topk: Annotated[int | None, whole("tokens of each model that count; 0: all; None: as the preset", ge=0)] = None,
        gate: Gate = 1.0,
        helpers: Annotated[Sequence[Member], Resource()],
        token_bytes: Annotated[Sequence[bytes | None], Resource()] = (),
        end_tokens: Annotated[Sequence[int], Resource()] = (),
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        said = {"main_floor": main_floor, "guard": guard, "filters": filters, "agreement": agreement}
        said |= {"mean_one": mean_one, "topk": topk}
        chosen = vars(consistency.PRESETS[preset]) | {name: value for name, value in said.items() if value is not None}
        self.setting = consistency.Setting(**chosen)
        self.kernel, self.sharpness, self.gate = kernel, sharpness, gate
        self.helpers = () if is_neutral(self.setting.main_floor, 1) else tuple(helpers)
        self.token_bytes, self.end_tokens, self.trace = token_bytes, frozenset(end_tokens), trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Models,
        align: Align = "gac",
        prompts: Prompts = None,
        **given: Any,
    ) -> Core:
        """Find the helpers and read along with each."""
        side = AlignmentVocabulary.of(binding.model, binding.tokenizer)
        found = members(binding, "core", models, align, prompts)
        return cls(
            helpers=found,
            token_bytes=side.vocabulary.token_bytes,
            end_tokens=side.end_tokens,
            trace=binding.trace,
            **given,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``; rows not asked about stay as they are."""
        fired = _asked("core", self, scores)
        if fired is None:
            return scores
        main, said = opinions(input_ids, scores, self.helpers, topk=self.setting.topk or 0)
        found = consistency.consensus(
            main,
            said,
            kernel=self.kernel,
            main_floor=self.setting.main_floor,
            filters=self.setting.filters,
            agreement=self.setting.agreement,
            mean_one=self.setting.mean_one,
            sharpness=self.sharpness,
        )
        if self.setting.guard:
            fired = fired & ~self._spelled_otherwise(scores, found.logp)
        if self.trace is not None:
            self._note(found, said)
        return torch.where(fired[:, None], _finished(found.logp, scores), scores)

    def _spelled_otherwise(self, scores: Tensor, logp: Tensor) -> Tensor:
        """Rows whose choice is the main model's, longer or shorter, or where the main model ends, ``[rows]``."""
        choices = zip(scores.argmax(-1).tolist(), logp.argmax(-1).tolist(), strict=True)
        return torch.tensor([self._guarded(main, chosen) for main, chosen in choices], device=scores.device)

    def _guarded(self, main: int, chosen: int) -> bool:
        if main == chosen:
            return False
        if main in self.end_tokens:
            return True
        ours, theirs = (self.token_bytes[token] if token < len(self.token_bytes) else None for token in (main, chosen))
        return bool(ours and theirs and (ours.startswith(theirs) or theirs.startswith(ours)))

    def _note(self, found: consistency.Consensus, said: Sequence[Tensor]) -> None:
        """Leave the step's diagnostics in the trace."""
        if self.trace is None or not self.trace.recording:
            return
        self.trace.note(weight_main=found.weights[0], **_lost(self.helpers, said))
        for helper, weight, apart, cut in zip(
            self.helpers, found.weights[1:], found.disagreement, found.filtered, strict=True
        ):
            told = {"weight": weight, "disagreement": apart, "filtered": cut}
            self.trace.note(**{f"{what}_{helper.name}": value for what, value in told.items()})


def _asked(name: str, processor: Any, scores: Tensor) -> Tensor | None:
    """Rows about which the helpers are asked, ``[rows]``; None: none, or nobody would say anything new."""
    if all(helper.same for helper in processor.helpers) or is_neutral(processor.gate, 0):
        return None
    if is_neutral(processor.gate, 1):
        return torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    fired = scores.float().softmax(-1).amax(-1) <= processor.gate
    if processor.trace is not None:
        processor.trace.count_fired(name, fired)
        processor.trace.note(fired=fired)
    return fired if bool(fired.any()) else None


def _finished(logp: Tensor, scores: Tensor) -> Tensor:
    """Keep impossible tokens impossible and the dtype as it was."""
    kept = logp.masked_fill(scores == -torch.inf, -torch.inf)
    return mark_normalised(kept.log_softmax(-1)).to(scores.dtype)


def _lost(helpers: Sequence[Member], said: Sequence[Tensor]) -> dict[str, Tensor]:
    """Share of each helper's probability that its alignment could not translate, ``[rows]`` each."""
    return {f"lost_{helper.name}": 1 - p.sum(-1) for helper, p in zip(helpers, said, strict=True)}


def _reachable(helper: Member) -> Tensor | None:
    """Main tokens that a helper can speak for, ``[size]``; None: all."""
    if helper.alignment is None:
        return None
    if helper.alignment.reverse is not None:
        return helper.alignment.reverse >= 0
    every = torch.ones(1, len(helper.alignment.targets), device=helper.alignment.targets.device)
    return helper.alignment.translate(every)[0] > 0


def _width(can: Tensor, scores: Tensor) -> Tensor:
    """Bring a mask to the width of the scores; ids beyond cannot be reached."""
    missing = scores.shape[-1] - len(can)
    return torch.nn.functional.pad(can, (0, missing)) if missing > 0 else can[: scores.shape[-1]]
