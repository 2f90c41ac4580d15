"""`fuse_distributions`: by hand, and its properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.byte_level import fuse_distributions
from logitkit.processors.byte_level.fusion import normalised_weights

HALF = torch.tensor([0.5, 0.5]).log()


def test_worked_example() -> None:
    """By hand: mean, geometric mean, and the mean after one model gave the text three times the probability."""
    distributions = torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.5, 0.25]]]).log()
    torch.testing.assert_close(fuse_distributions(distributions, HALF).exp(), torch.tensor([[0.375, 0.5, 0.125]]))
    root = torch.tensor([0.125**0.5, 0.5, 0.0])
    torch.testing.assert_close(fuse_distributions(distributions, HALF, "product").exp(), (root / root.sum())[None])
    evidence = torch.tensor([[3.0], [1.0]]).log()  # weights 3/4 and 1/4
    got = fuse_distributions(distributions, HALF[:, None] + evidence, "sequence").exp()
    torch.testing.assert_close(got, torch.tensor([[0.4375, 0.5, 0.0625]]))


def test_a_model_without_weight_forbids_nothing() -> None:
    """A model of weight 0 changes nothing, in a product too; an empty product is the main model's distribution."""
    distributions = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]).log()
    alone = torch.tensor([1.0, 0.0]).log()
    torch.testing.assert_close(fuse_distributions(distributions, alone, "product"), distributions[0])
    torch.testing.assert_close(fuse_distributions(distributions, alone), distributions[0])
    apart = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    torch.testing.assert_close(fuse_distributions(apart, HALF, "product"), apart[0])
    lost = torch.full((2, 1), -torch.inf)
    torch.testing.assert_close(
        fuse_distributions(distributions, lost, "sequence"), fuse_distributions(distributions, HALF)
    )


@given(seed=st.integers(0, 999), models=st.integers(1, 4), how=st.sampled_from(["mixture", "product", "sequence"]))
def test_fusion_is_a_distribution_between_its_members(seed: int, models: int, how: Any) -> None:
    """The result sums to 1, ignores the scale of the weights, and equals the members where they agree."""
    generator = torch.Generator().manual_seed(seed)
    distributions = torch.randn(models, 2, 5, generator=generator).log_softmax(-1)
    distributions[:, :, 0] = -torch.inf
    logw = torch.randn(models, generator=generator)
    got = fuse_distributions(distributions, logw, how)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(2))
    torch.testing.assert_close(got, fuse_distributions(distributions, logw + 3, how))
    same = distributions[:1].expand(models, -1, -1)
    torch.testing.assert_close(fuse_distributions(same, logw, how), same[0].log_softmax(-1))
    if how != "product":
        assert bool((got.exp() <= distributions.log_softmax(-1).exp().amax(0) + 1e-6).all())


@pytest.mark.parametrize("how", ["mixture", "product", "sequence"])
def test_only_allowed_entries_keep_probability(how: Any) -> None:
    """Both models agree on (1/2, 1/4, 1/4), of which 2/3 and 1/3 are left; without an allowed entry the row is kept."""
    distributions = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]).log().expand(2, 2, 3)
    allowed = torch.tensor([[True, False, True], [False, False, False]])
    got = fuse_distributions(distributions, HALF, how, allowed=allowed).exp()
    torch.testing.assert_close(got, torch.tensor([[2 / 3, 0.0, 1 / 3], [0.25, 0.5, 0.25]]))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [math.inf, 1.0], [-1.0, 2.0], [0.0, 0.0], [math.nan, 1.0]])
def test_weights_that_are_no_weights_are_refused(weights: list[float]) -> None:
    """Another number of weights, infinite, negative and undefined weights, and zeros alone raise a ParameterError."""
    with pytest.raises(ParameterError, match="weights must be 2 finite numbers >= 0"):
        normalised_weights(weights, 2)
    assert normalised_weights([0.0, 2.0], 2) == [0.0, 1.0]
