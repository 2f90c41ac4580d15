"""The learned deferral rule: its features, its training, its calibration and its file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade import (
    SEQUENCE_RULES,
    PostHocRule,
    PostHocRuleConfig,
    area_under_deferral_curve,
    posthoc_features,
    sequence_score,
)
from logitkit.processors.cascade.posthoc_rule import _calibrate

FASTER = dataclasses.replace(PostHocRule.default_settings, learning_rate=3e-3)


def outputs(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probabilities, mask and both qualities of outputs of 3 to 12 tokens.

    The small model is right unless the third least likely token of its output has a log-probability below -2. The
    large model is always right.
    """
    generator = torch.Generator().manual_seed(seed)
    logps = -(torch.rand(count, 12, generator=generator).mul(3) ** 2)
    lengths = torch.randint(3, 13, (count,), generator=generator)
    mask = torch.arange(12) < lengths[:, None]
    third = logps.masked_fill(~mask, 0).sort(-1).values[:, 2]
    small = (third > -2).float()
    return logps, mask, small, torch.ones(count)


def test_features_by_hand() -> None:
    """Features are the quantiles 0, 1/2, 1, sum, average and log length; an empty output is one unlikely token."""
    logps = torch.tensor([[-1.0, -3.0, -2.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    got = posthoc_features(logps, mask, PostHocRuleConfig(quantiles=3))
    want = torch.tensor([[-3, -2, -1, -6, -2, math.log(3)], [-50, -50, -50, -50, -50, 0]])
    torch.testing.assert_close(got, want)


def test_the_learned_rule_beats_the_chow_scores() -> None:
    """If no single quantile decides, the rule has a larger area on new outputs than sum, average and minimum."""
    rule = PostHocRule.fit(*outputs(800, 0), settings=FASTER)
    logps, mask, small, large = outputs(800, 1)
    learned = area_under_deferral_curve(rule(logps, mask), small, large)
    for name in SEQUENCE_RULES:
        assert learned.area > area_under_deferral_curve(sequence_score(logps, mask, name), small, large).area
    assert learned.gain_interval[0] > 0


def test_probabilities_are_calibrated() -> None:
    """On new outputs, the mean probability equals the share of gains within .05, and in each half within .08."""
    rule = PostHocRule.fit(*outputs(800, 0), settings=FASTER)
    logps, mask, small, _ = outputs(800, 1)
    probability, gains = rule.gain(logps, mask), 1 - small
    assert float(probability.mean()) == pytest.approx(float(gains.mean()), abs=0.05)
    for half in (probability < 0.5, probability >= 0.5):
        assert float(probability[half].mean()) == pytest.approx(float(gains[half].mean()), abs=0.08)


def test_the_gain_can_be_learned() -> None:
    """With target "gain" the prediction correlates with the difference of the qualities."""
    logps, mask, small, large = outputs(600, 2)
    gain = large - 0.5 * small
    rule = PostHocRule.fit(logps, mask, small * 0.5, large, config=PostHocRuleConfig(target="gain"), settings=FASTER)
    assert float(torch.corrcoef(torch.stack([rule.gain(logps, mask), gain]))[0, 1]) > 0.7


def test_further_features_are_used() -> None:
    """A further feature that decides everything is learned, where log-probabilities are uninformative."""
    logps, mask, _, large = outputs(400, 3)
    extra = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    small = (extra[:, 1] < 0.5).float()
    rule = PostHocRule.fit(logps, mask, small, large, extra=extra, settings=FASTER)
    assert area_under_deferral_curve(rule(logps, mask, extra), small, large).gain > 0.05
    with pytest.raises(ParameterError, match="extra must be 4 features a row, got 0"):
        rule(logps, mask)


def test_a_saved_rule_is_loaded_unchanged(tmp_path: Path) -> None:
    """A loaded rule gives the same scores, config and report; a folder with another kind of head is refused."""
    logps, mask, small, large = outputs(60, 4)
    settings = dataclasses.replace(PostHocRule.default_settings, epochs=3)
    rule = PostHocRule.fit(logps, mask, small, large, settings=settings)
    rule.save(tmp_path)
    loaded = PostHocRule.load(tmp_path)
    assert torch.equal(loaded(logps, mask), rule(logps, mask))
    assert (loaded.config, loaded.report) == (rule.config, rule.report)
    (tmp_path / "head.json").write_text('{"kind": "router head", "version": 1}')
    with pytest.raises(FileFormatError, match="must hold a post-hoc rule of version 1, got router head of 1"):
        PostHocRule.load(tmp_path)


def test_bad_examples_are_refused() -> None:
    """No items, NaN and qualities without a difference raise a ParameterError."""
    logps, mask, small, large = outputs(20, 5)
    qualities: dict[str, Any] = {"small": small, "large": large}
    with pytest.raises(ParameterError, match="examples must be at least one"):
        PostHocRule.fit(logps[:0], mask[:0], small[:0], large[:0])
    with pytest.raises(ParameterError, match="logps must be numbers, got 'NaN'"):
        PostHocRule.fit(logps * torch.nan, mask, **qualities)
    with pytest.raises(ParameterError, match="features must be finite numbers"):
        PostHocRule.fit(logps, mask, **qualities, extra=torch.full((20, 1), torch.nan))
    with pytest.raises(ParameterError, match="targets must be different between items, got '0 everywhere'"):
        PostHocRule.fit(logps, mask, small=large, large=large)


class Line(nn.Module):
    """A network that returns its only feature, with the calibration of a `PostHocNetwork`."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Buffer(torch.tensor(1.0)), nn.Buffer(torch.tensor(0.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return the feature, ``[rows]``."""
        return features[:, 0]


def calibrated(outputs: list[float], targets: list[float], loss: Any = nn.functional.mse_loss) -> tuple[float, float]:
    """Return the slope and the offset that calibration gives for these outputs on held-out rows."""
    network: Any = Line()
    _calibrate(network, torch.tensor(outputs)[:, None], torch.tensor(targets), loss)
    return float(network.slope), float(network.offset)


def test_calibration_by_hand() -> None:
    """For the targets 2 x + 1 of x = -1 and 1 the loss is (s - 2)^2 + (o - 1)^2, with the penalty of 1/1000.

    Its minimum is s = (2 + 1/1000) / (1 + 1/1000) and o = 1 / (1 + 1/1000).
    """
    assert calibrated([-1.0, 1.0], [-1.0, 3.0]) == pytest.approx((2.001 / 1.001, 1 / 1.001), abs=1e-5)


@pytest.mark.parametrize(
    ("outputs", "targets", "loss"),
    [
        ([-1.0, 1.0], [3.0, -1.0], nn.functional.mse_loss),  # the slope would be -2
        ([-2.0, -1.0, 1.0, 2.0], [1.0, 1.0, 0.0, 0.0], nn.functional.binary_cross_entropy_with_logits),
        ([-1.0, 1.0], [2.0, 2.0], nn.functional.mse_loss),  # equal targets
        ([1.0], [5.0], nn.functional.mse_loss),  # one row
        ([], [], nn.functional.mse_loss),
        ([math.inf, 1.0], [0.0, 1.0], nn.functional.mse_loss),  # no finite loss
    ],
)
def test_a_calibration_that_would_reverse_the_order_is_discarded(
    outputs: list[float], targets: list[float], loss: Any
) -> None:
    """Held-out rows that contradict the network, that do not differ, or that are too few change nothing."""
    assert calibrated(outputs, targets, loss) == (1.0, 0.0)
