"""A cascade of whole outputs: the small model answers, and what it is unsure of is answered again by a larger one.

Language model cascades, arXiv:2404.10136. Two or more stages; each has its own `generate` call and its own
tokenizer, since only texts pass between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.engine.prompts import pad_token, read_prompts
from logitkit.processors.model_facts import end_tokens

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """One model of a cascade and how it generates.

    Attributes:
        settings: of its `generate`, over those given to the cascade.
        batch: prompts that are answered together.
    """

    model: Any
    tokenizer: Any
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What one stage answered.

    Attributes:
        texts: the outputs.
        logps: log-probability of every emitted token under the model's own law, before any warper, ``[rows, tokens]``.
        mask: True where a token was emitted, the end token included only where that was asked for.
    """

    texts: list[str]
    logps: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Cascaded:
    """What a cascade answered.

    Attributes:
        texts: the outputs.
        stages: which stage gave each.
        scores: of each prompt at every stage but the last; NaN where it was settled before.
        rates: share of all prompts that reached each stage.
    """

    texts: list[str]
    stages: list[int]
    scores: list[list[float]]
    rates: list[float]


class SequenceCascade:
    """Small model first; prompts whose output scores below the threshold go on to the next stage, batched.

    Args:
        stages: two or more, cheapest first.
        rule: ``sum``, ``average``, ``quantile``, or a trained rule ``(logps, mask) -> [rows]`` such as `PostHocRule`.
        alpha: level of the quantile.
        thresholds: one for each stage but the last; `calibrate` finds them.
        include_end: whether the end token's log-probability counts. It changes sum and average.

    Raises:
        ParameterError: fewer than two stages, another number of thresholds, NaN.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        rule: deferral.SequenceRule | Score = "quantile",
        alpha: float = 0.0,
        thresholds: Sequence[float] | None = None,
        include_end: bool = True,
    ) -> None:
        if len(stages) < 2:
            raise ParameterError("SequenceCascade", "stages", "two or more", len(stages))
        if isinstance(rule, str) and rule not in ("sum", "average", "quantile"):
            raise ParameterError("SequenceCascade", "rule", "'sum', 'average', 'quantile' or a trained rule", rule)
        if not 0 <= alpha <= 1:
            raise ParameterError("SequenceCascade", "alpha", "a finite number >= 0 and <= 1", alpha)
        if thresholds is not None and (
            len(thresholds) != len(stages) - 1 or any(math.isnan(value) for value in thresholds)
        ):
            raise ParameterError("SequenceCascade", "thresholds", f"{len(stages) - 1} numbers", thresholds)
        self.stages, self.rule, self.alpha, self.include_end = tuple(stages), rule, alpha, include_end
        self.thresholds = None if thresholds is None else tuple(thresholds)

    def score(self, answers: Answers) -> Tensor:
        """The score of every output, ``[rows]``; the lowest are deferred first."""
        if callable(self.rule):
            return self.rule(answers.logps, answers.mask)
        return deferral.sequence_score(answers.logps, answers.mask, self.rule, alpha=self.alpha)

    def calibrate(self, prompts: Sequence[Any], rates: float | Sequence[float], **settings: Any) -> SequenceCascade:
        """Return this cascade with thresholds that defer the given share at each stage on a calibration set.

        Args:
            prompts: of the calibration set; only what was deferred reaches the next stage's calibration.
            rates: share deferred by each stage but the last, of what reaches it; one number for all.
            settings: of `generate`.

        Raises:
            ParameterError: an empty calibration set, or a rate outside 0 to 1.
        """
        wanted = [rates] * (len(self.stages) - 1) if isinstance(rates, (int, float)) else list(rates)
        if len(wanted) != len(self.stages) - 1:
            raise ParameterError("calibrate", "rates", f"one number, or {len(self.stages) - 1}", rates)
        left, thresholds = list(prompts), []
        for number, (stage, rate) in enumerate(zip(self.stages, wanted, strict=False)):
            if not left:
                raise ParameterError(
                    "calibrate", "prompts", f"enough to reach stage {number}", "an empty calibration set", "give more"
                )
            scores = self.score(answer(stage, left, include_end=self.include_end, **settings))
            thresholds.append(deferral.threshold_for_rate(scores, rate))
            left = [prompt for prompt, value in zip(left, scores.tolist(), strict=True) if value < thresholds[-1]]
        return SequenceCascade(
            self.stages, rule=self.rule, alpha=self.alpha, thresholds=thresholds, include_end=self.include_end
        )

    def generate(
        self, prompts: Sequence[Any], *, advance: Callable[[int], None] = lambda count: None, **settings: Any
    ) -> Cascaded:
        """Answer prompts, as texts or chats; deferred ones are answered again in batches by the next stage.

        Args:
            prompts: a list of texts or of chats.
            advance: called with the number of prompts that were answered.
            settings: of `generate`; deferral needs one output a prompt.

        Raises:
            ParameterError: no thresholds yet.
        """
        if self.thresholds is None:
            raise ParameterError("SequenceCascade", "thresholds", "set", None, "call calibrate, or give them")
        texts, stages = [""] * len(prompts), [0] * len(prompts)
        scores = [[math.nan] * (len(self.stages) - 1) for _ in prompts]
        left, rates = list(range(len(prompts))), []
        for number, stage in enumerate(self.stages):
            rates.append(len(left) / max(1, len(prompts)))
            if not left:
                continue
            asked = [prompts[place] for place in left]
            answers = answer(stage, asked, include_end=self.include_end, advance=advance, **settings)
            for place, text in zip(left, answers.texts, strict=True):
                texts[place], stages[place] = text, number
            if number < len(self.thresholds):
                found = self.score(answers).tolist()
                for place, value in zip(left, found, strict=True):
                    scores[place][number] = value
                left = [place for place, s in zip(left, found, strict=True) if s < self.thresholds[number]]
        return Cascaded(texts=texts, stages=stages, scores=scores, rates=rates)


@torch.no_grad()
def answer(
    stage: Stage,
    prompts: Sequence[Any],
    *,
    include_end: bool = True,
    advance: Callable[[int], None] = lambda count: None,
    **settings: Any,
) -> Answers:
    """Answer prompts in batches; one output each, greedy unless the settings say otherwise.

    Raises:
        ParameterError: settings that give other than one output a prompt in order.
    """
    asked = {"do_sample": False, **settings, **stage.settings}
    if (asked.get("num_beams") or 1) > 1 or (asked.get("num_return_sequences") or 1) > 1:
        raise ParameterError("SequenceCascade", "num_beams and num_return_sequences", "1", asked, "leave them out")
    texts: list[str] = []
    found: list[tuple[Tensor, Tensor]] = []
    pad = pad_token(stage.tokenizer, stage.model)
    for start in range(0, len(prompts), stage.batch):
        bound = read_prompts(stage.tokenizer, stage.model, list(prompts[start : start + stage.batch]))
        output = stage.model.generate(
            bound.ids,
            attention_mask=bound.mask,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=pad,
            **asked,
        )
        tokens = output.sequences[:, output.sequences.shape[1] - len(output.logits) :]
        texts += stage.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        steps = [
            logits.float().log_softmax(-1).gather(-1, own[:, None].to(logits.device))[:, 0].cpu()
            for logits, own in zip(output.logits, tokens.unbind(1), strict=True)
        ]
        found.append(
            (torch.stack(steps, dim=1), _emitted(tokens.cpu(), end_tokens(stage.model, settings=asked), include_end))
        )
        advance(len(bound))
    width = max((logps.shape[1] for logps, _ in found), default=0)
    padded = [[torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in pair] for pair in found] or [
        [torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.bool)]
    ]
    logps, mask = (torch.cat(parts) for parts in zip(*padded, strict=True))
    return Answers(texts=texts, logps=logps.masked_fill(~mask, 0), mask=mask)


def _emitted(tokens: Tensor, ends: Sequence[int], include_end: bool) -> Tensor:
    """True where a token counts: up to the first end token, with it or without, ``[rows, tokens]``."""
    is_end = torch.isin(tokens, torch.tensor(sorted(ends), dtype=tokens.dtype))
    after = is_end.long().cumsum(-1) - is_end.long()  # ends before each token
    return (after == 0) & (include_end | ~is_end)
