"""A sequence-level cascade: a small model generates, and outputs with a low score are generated again by a larger one.

Source: language model cascades, arXiv:2404.10136. There may be more than two stages. Only texts pass between
stages, so each stage has its own tokenizer and its own `generate` settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.cascade.sequence_rules import (
    SEQUENCE_RULES,
    SequenceRule,
    sequence_score,
    threshold_for_rate,
)
from logitkit.processors.cascade.stages import Stage, StageOutputs, generate_outputs

OutputScore = Callable[[Tensor, Tensor], Tensor]  # (logps, mask), each [rows, tokens] -> [rows]


@dataclass(frozen=True, eq=False, kw_only=True)
class SequenceCascadeResult:
    """Outputs of a cascade.

    Attributes:
        texts: one output for each prompt.
        stages: number of the stage that generated each output, from 0.
        scores: score of each prompt at every stage but the last; NaN at stages after the one that generated its output.
        rates: share of all prompts that reached each stage.

    >>> result = SequenceCascadeResult(texts=["a", "b"], stages=[0, 1], scores=[[-1.0], [-3.0]], rates=[1.0, 0.5])
    >>> [text for text, stage in zip(result.texts, result.stages) if stage == 1]
    ['b']
    """

    texts: list[str]
    stages: list[int]
    scores: list[list[float]]
    rates: list[float]


class SequenceCascade:
    """Generate with the first stage; prompts whose output scores below a threshold go on to the next stage.

    Args:
        stages: two or more stages, the cheapest first.
        rule: ``sum``, ``average``, ``quantile`` (see `sequence_score`), or a function ``(logps, mask) -> [rows]`` such
            as a trained `PostHocRule`.
        alpha: level of the quantile, 0 to 1.
        thresholds: one threshold for each stage but the last; `calibrate` computes them from deferral rates.
        include_end: whether the end token's log-probability counts. It changes ``sum`` and ``average``.

    Raises:
        ParameterError: fewer than two stages, an unknown rule, or a wrong number of thresholds.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> stages = [Stage(model=tiny_model(seed), tokenizer=tiny_tokenizer()) for seed in (0, 1)]
    >>> cascade = SequenceCascade(stages, rule="average", thresholds=[-math.inf])
    >>> cascade.generate(["one prompt", "another"], max_new_tokens=2).rates
    [1.0, 0.0]
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        rule: SequenceRule | OutputScore = "quantile",
        alpha: float = 0.0,
        thresholds: Sequence[float] | None = None,
        include_end: bool = True,
    ) -> None:
        if len(stages) < 2:
            raise ParameterError("SequenceCascade", "stages", "two or more", len(stages))
        if isinstance(rule, str) and rule not in SEQUENCE_RULES:
            choices = f"{', '.join(map(repr, SEQUENCE_RULES))} or a function"
            raise ParameterError("SequenceCascade", "rule", choices, rule)
        if not 0 <= alpha <= 1:
            raise ParameterError("SequenceCascade", "alpha", "a finite number >= 0 and <= 1", alpha)
        if thresholds is not None and (
            len(thresholds) != len(stages) - 1 or any(math.isnan(value) for value in thresholds)
        ):
            raise ParameterError("SequenceCascade", "thresholds", f"{len(stages) - 1} numbers", thresholds)
        self.stages, self.rule, self.alpha, self.include_end = tuple(stages), rule, alpha, include_end
        self.thresholds = None if thresholds is None else tuple(thresholds)

    def score(self, outputs: StageOutputs) -> Tensor:
        """Return the score of every output, ``[rows]``; the lowest are deferred first."""
        if callable(self.rule):
            return self.rule(outputs.logps, outputs.mask)
        return sequence_score(outputs.logps, outputs.mask, self.rule, alpha=self.alpha)

    def calibrate(
        self, prompts: Sequence[Any], rates: float | Sequence[float], **generate_kwargs: Any
    ) -> SequenceCascade:
        """Return this cascade with thresholds that defer given shares of a calibration set.

        Args:
            prompts: the calibration set. Each stage is calibrated on the prompts that earlier stages defer.
            rates: share of its prompts that each stage but the last defers, 0 to 1; one number applies to all stages.
            generate_kwargs: arguments of `generate` for every stage.

        Raises:
            ParameterError: no calibration prompt reaches a stage, or a rate is outside 0 to 1.
        """
        shares = [rates] * (len(self.stages) - 1) if isinstance(rates, (int, float)) else list(rates)
        if len(shares) != len(self.stages) - 1:
            raise ParameterError("calibrate", "rates", f"one number or {len(self.stages) - 1} numbers", rates)
        remaining, thresholds = list(prompts), []
        for number, (stage, rate) in enumerate(zip(self.stages, shares, strict=False)):
            if not remaining:
                raise ParameterError(
                    "calibrate", "prompts", f"enough to reach stage {number}", "an empty calibration set", "add prompts"
                )
            outputs = generate_outputs(stage, remaining, include_end=self.include_end, **generate_kwargs)
            scores = self.score(outputs)
            thresholds.append(threshold_for_rate(scores, rate))
            remaining = [
                prompt for prompt, value in zip(remaining, scores.tolist(), strict=True) if value < thresholds[-1]
            ]
        return SequenceCascade(
            self.stages, rule=self.rule, alpha=self.alpha, thresholds=thresholds, include_end=self.include_end
        )

    def generate(
        self, prompts: Sequence[Any], *, advance: Callable[[int], None] = lambda count: None, **generate_kwargs: Any
    ) -> SequenceCascadeResult:
        """Generate one output for each prompt; each stage generates its prompts in batches.

        Args:
            prompts: texts or chats.
            advance: called after each batch of a stage with its number of prompts.
            generate_kwargs: arguments of `generate` for every stage; one output for each prompt is required.

        Raises:
            ParameterError: the cascade has no thresholds.
        """
        if self.thresholds is None:
            raise ParameterError("SequenceCascade", "thresholds", "set", None, "call calibrate, or pass thresholds")
        texts, stages = [""] * len(prompts), [0] * len(prompts)
        scores = [[math.nan] * (len(self.stages) - 1) for _ in prompts]
        remaining, rates = list(range(len(prompts))), []  # indices of the prompts that reach a stage
        for number, stage in enumerate(self.stages):
            rates.append(len(remaining) / max(1, len(prompts)))
            if not remaining:
                continue
            batch = [prompts[index] for index in remaining]
            outputs = generate_outputs(stage, batch, include_end=self.include_end, advance=advance, **generate_kwargs)
            for index, text in zip(remaining, outputs.texts, strict=True):
                texts[index], stages[index] = text, number
            if number < len(self.thresholds):
                scored = list(zip(remaining, self.score(outputs).tolist(), strict=True))
                for index, value in scored:
                    scores[index][number] = value
                remaining = [index for index, value in scored if value < self.thresholds[number]]
        return SequenceCascadeResult(texts=texts, stages=stages, scores=scores, rates=rates)
