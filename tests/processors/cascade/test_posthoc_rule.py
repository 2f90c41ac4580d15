"""The learned deferral rule: features by hand, what it learns, calibration, and its file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade.deferral_curve import area_under
from logitkit.processors.cascade.posthoc_rule import PostHocRule, Shape, features
from logitkit.processors.cascade.rules import sequence_score


def outputs(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of 2 to 12 tokens; the small one is right unless its third worst token is below -2."""
    generator = torch.Generator().manual_seed(seed)
    logps = -(torch.rand(count, 12, generator=generator).mul(3) ** 2)
    lengths = torch.randint(3, 13, (count,), generator=generator)
    mask = torch.arange(12) < lengths[:, None]
    third = logps.masked_fill(~mask, 0).sort(-1).values[:, 2]
    small = (third > -2).float()
    return logps, mask, small, torch.ones(count)


def test_features_by_hand() -> None:
    """Quantiles 0, 1/2, 1; sum, average, log of the length; an empty output is one very unlikely token."""
    logps = torch.tensor([[-1.0, -3.0, -2.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    got = features(logps, mask, Shape(quantiles=3))
    want = torch.tensor([[-3, -2, -1, -6, -2, math.log(3)], [-50, -50, -50, -50, -50, 0]])
    torch.testing.assert_close(got, want)


def test_it_finds_what_no_single_quantile_says() -> None:
    """On fresh outputs its area beats random by more than Chow-Sum, Chow-Average and the minimum do."""
    rule = PostHocRule.fit(*outputs(800, 0), rate=3e-3)
    logps, mask, small, large = outputs(800, 1)
    learned = area_under(rule(logps, mask), small, large)
    for name in ("sum", "average", "quantile"):
        chow = area_under(sequence_score(logps, mask, name), small, large)  # type: ignore[arg-type]
        assert learned.area > chow.area
    assert learned.gain_interval[0] > 0


def test_its_probabilities_are_calibrated() -> None:
    """On fresh outputs the mean probability is the share that gains, within .05; also by halves."""
    rule = PostHocRule.fit(*outputs(800, 0), rate=3e-3)
    logps, mask, small, _ = outputs(800, 1)
    probability, gains = rule.gain(logps, mask), 1 - small
    assert float(probability.mean()) == pytest.approx(float(gains.mean()), abs=0.05)
    for half in (probability < 0.5, probability >= 0.5):
        assert float(probability[half].mean()) == pytest.approx(float(gains[half].mean()), abs=0.08)


def test_it_learns_how_much_too() -> None:
    """Target gain: the calibrated answer correlates with the gain."""
    logps, mask, small, large = outputs(600, 2)
    gain = large - 0.5 * small
    rule = PostHocRule.fit(logps, mask, small * 0.5, large, target="gain", rate=3e-3)
    assert float(torch.corrcoef(torch.stack([rule.gain(logps, mask), gain]))[0, 1]) > 0.7


def test_hidden_states_are_features_too() -> None:
    """A hidden number that decides everything is found, where log-probabilities say nothing."""
    logps, mask, _, large = outputs(400, 3)
    extra = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    small = (extra[:, 1] < 0.5).float()
    rule = PostHocRule.fit(logps, mask, small, large, extra=extra, rate=3e-3)
    assert area_under(rule(logps, mask, extra), small, large).gain > 0.05
    with pytest.raises(ParameterError, match="extra must be 4 features a row, got 0"):
        rule(logps, mask)


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """safetensors and JSON; the same scores; another kind of head is refused."""
    logps, mask, small, large = outputs(60, 4)
    rule = PostHocRule.fit(logps, mask, small, large, epochs=3)
    rule.save(tmp_path)
    again = PostHocRule.load(tmp_path)
    assert torch.equal(again(logps, mask), rule(logps, mask))
    assert (again.target, again.report) == (rule.target, rule.report)
    (tmp_path / "head.json").write_text('{"kind": "router head", "version": 1}')
    with pytest.raises(FileFormatError, match="must hold a post-hoc rule of version 1, got router head of 1"):
        PostHocRule.load(tmp_path)


def test_bad_input() -> None:
    """No items, NaN, nothing to learn."""
    logps, mask, small, large = outputs(20, 5)
    given: dict[str, Any] = {"small": small, "large": large}
    with pytest.raises(ParameterError, match="examples must be at least one"):
        PostHocRule.fit(logps[:0], mask[:0], small[:0], large[:0])
    with pytest.raises(ParameterError, match="logps must be numbers, got 'NaN'"):
        PostHocRule.fit(logps * torch.nan, mask, **given)
    with pytest.raises(ParameterError, match="features must be finite numbers"):
        PostHocRule.fit(logps, mask, **given, extra=torch.full((20, 1), torch.nan))
    with pytest.raises(ParameterError, match="qualities must be of items that differ, got '0 everywhere'"):
        PostHocRule.fit(logps, mask, small=large, large=large)
