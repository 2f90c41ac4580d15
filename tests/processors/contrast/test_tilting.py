"""Optima of a reward under a divergence: by hand, against numerical optimisation, bounds, and laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import CFG, DExperts, cfg, dexperts, tilted
from logitkit.registry.laws import check_modes, parametrize_with_laws
from reference.fixed_streams import logits_with_ties

HALVES, REWARD = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[3.0, 0.0]])


def test_forward_kl_by_hand() -> None:
    """1/2 / (l - 3) + 1/2 / l = 1 is l^2 - 4 l + 3/2 = 0, so l = 2 + sqrt(5/2), and pi = 1/2 / (l - 3)."""
    multiplier = 2 + math.sqrt(2.5)
    want = torch.tensor([[0.5 / (multiplier - 3), 0.5 / multiplier]])
    torch.testing.assert_close(tilted(HALVES, REWARD, "forward_kl").exp(), want)


def test_js_by_hand() -> None:
    """With x = 2 exp(l): 1/2 / (x e^-3 - 1) + 1/2 / (x - 1) = 1 is e^-3 x^2 - 3/2 (1 + e^-3) x + 2 = 0."""
    small = math.exp(-3)
    x = (1.5 * (1 + small) + math.sqrt(2.25 * (1 + small) ** 2 - 8 * small)) / (2 * small)
    want = torch.tensor([[0.5 / (x * small - 1), 0.5 / (x - 1)]])
    torch.testing.assert_close(tilted(HALVES, REWARD, "js").exp(), want)


def objective(pi: Tensor, p: Tensor, reward: Tensor, divergence: str) -> Tensor:
    """Return the expected reward minus the divergence; fp64 rows without impossible tokens."""
    middle = (pi + p) / 2
    paid = {
        "reverse_kl": lambda: (pi * (pi / p).log()).sum(),
        "forward_kl": lambda: (p * (p / pi).log()).sum(),
        "js": lambda: (pi * (pi / middle).log()).sum() + (p * (p / middle).log()).sum(),
    }
    return (pi * reward).sum() - paid[divergence]()


@given(seed=st.integers(0, 999), divergence=st.sampled_from(["reverse_kl", "forward_kl", "js"]))
@settings(max_examples=30, deadline=None)
def test_no_distribution_is_better(seed: int, divergence: str) -> None:
    """Slow reference: moving mass between any two tokens, or towards another distribution, lowers the objective."""
    generator = torch.Generator().manual_seed(seed)
    logp = torch.randn(1, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    reward = 3 * torch.randn(1, 5, generator=generator, dtype=torch.float64)
    pi, p = tilted(logp, reward, divergence).double().softmax(-1)[0], logp[0].exp()  # type: ignore[arg-type]
    best = objective(pi, p, reward[0], divergence)
    for source in range(5):
        for target in set(range(5)) - {source}:
            moved = pi.clone()
            step = 1e-3 * float(pi[source])
            moved[source], moved[target] = moved[source] - step, moved[target] + step
            assert objective(moved, p, reward[0], divergence) <= best + 1e-7
    for _ in range(5):
        other = torch.rand(5, generator=generator, dtype=torch.float64)
        mixed = 0.95 * pi + 0.05 * other / other.sum()
        assert objective(mixed, p, reward[0], divergence) < best + 1e-7


@given(seed=st.integers(0, 999), divergence=st.sampled_from(["forward_kl", "js"]))
@settings(max_examples=40, deadline=None)
def test_keeps_masks_order_and_sum(seed: int, divergence: str) -> None:
    """-inf stays, probabilities sum to one, and a larger reward at equal probability is a larger result."""
    logp = logits_with_ties(seed).log_softmax(-1)
    reward = 20 * torch.randn(4, 20, generator=torch.Generator().manual_seed(seed))
    got = tilted(logp, reward, divergence)  # type: ignore[arg-type]
    assert torch.equal(got == -math.inf, logp == -math.inf)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(4))
    order = reward[1].argsort()  # the second row is uniform
    assert bool((got[1][order].diff() >= -1e-5).all())


@given(seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_forward_kl_keeps_a_share_of_every_token(seed: int) -> None:
    """A token keeps at least p / (1 + d), where d is how far its reward is below the largest."""
    logp = logits_with_ties(seed).log_softmax(-1)
    reward = 20 * torch.randn(4, 20, generator=torch.Generator().manual_seed(seed))
    largest = torch.where(logp > -math.inf, reward, -math.inf).amax(-1, keepdim=True)
    share = logp.exp() / (1 + largest - reward)
    assert bool((tilted(logp, reward, "forward_kl").exp() >= share * (1 - 1e-4)).all())


def test_the_known_fault_of_large_scales() -> None:
    """At scale 5 the formula leaves .9 nothing against a token of 1e-4; forward KL keeps .036, js does not protect."""
    p, q = torch.tensor([[0.9, 0.0999, 0.0001]]).log(), torch.tensor([[0.9, 0.0999999, 1e-7]]).log()
    kept = {kind: cfg(p, q, scale=5.0, divergence=kind).exp()[0, 0].item() for kind in ("forward_kl", "js")}
    assert cfg(p, q, scale=5.0).exp()[0, 0] < 1e-7
    assert kept["forward_kl"] == pytest.approx(0.0326, abs=2e-3) and kept["js"] < 1e-6


def test_extreme_rows_stay_finite() -> None:
    """Rewards of 1e4 and probabilities of exp(-5000) give finite, normalised rows."""
    logp = torch.tensor([[0.0, -5000.0, -100.0, -torch.inf]])
    for divergence in ("forward_kl", "js"):
        for reward in ([0.0, 1e4, 0.0, 0.0], [0.0, -1e4, 50.0, 0.0], [0.0, 0.0, 0.0, 0.0]):
            got = tilted(logp, torch.tensor([reward]), divergence)  # type: ignore[arg-type]
            assert bool(got[0, :3].isfinite().all()) and got[0, 3] == -math.inf
    torch.testing.assert_close(got.softmax(-1), logp.softmax(-1))


def test_processors_take_the_divergence() -> None:
    """`CFG` and `DExperts` return what the functions return; an unknown divergence is refused."""
    first, second, third = (logits_with_ties(seed) for seed in (1, 2, 3))
    ids = torch.zeros(4, 1).long()
    got = CFG(unconditional=lambda rows: second, scale=3.0, divergence="js")(ids, first)
    assert torch.equal(got, cfg(first, second, scale=3.0, divergence="js"))
    experts = {"expert": lambda rows: second, "antiexpert": lambda rows: third, "divergence": "forward_kl"}
    assert torch.equal(DExperts(**experts)(ids, first), dexperts(first, second, third, divergence="forward_kl"))
    with pytest.raises(ParameterError, match=r"cfg: divergence must be one of 'reverse_kl', 'forward_kl', 'js'"):
        logitkit.chain("cfg(divergence='kl')")


def variant(name: str, example: str) -> logitkit.Spec:
    """Return a registered Spec with another example."""
    return dataclasses.replace(logitkit.describe(name), name=f"{name}_tilted", example=f"{name}_tilted({example})")


VARIANTS = [
    variant("cfg", "scale=2.5, negative='a negative prompt', divergence='forward_kl'"),
    variant("dexperts", "expert='other', antiexpert='third', divergence='js'"),
]


@parametrize_with_laws(VARIANTS)
def test_tilted_steps_keep_the_laws(check: Callable[[], None]) -> None:
    """Both keep every law of a processor."""
    check()


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_tilted_steps_are_right_in_the_modes(spec: logitkit.Spec) -> None:
    """Padded batches, beams and assisted decoding equal recomputation from scratch."""
    results = check_modes(spec, ["greedy", "beams", "left_padding", "assisted", "bf16"])
    assert all(result.right for result in results), results
