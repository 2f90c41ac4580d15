"""DeePEn: the search against torch's AdamW, and the processor against a reference of whole distributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from foreign import foreign_model, foreign_tokenizer
from logitkit.errors import ParameterError
from logitkit.processors.ensemble.deepen import cosine_rate, search
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def bound(chain: str, other: Any = None) -> Any:
    """Return the chain bound to the tiny model, with ``far`` a foreign model, or ``other``."""
    model = other or foreign_model()
    tokenizer = tiny_tokenizer() if other else foreign_tokenizer()
    return logitkit.chain(chain).bind(
        tiny_model(), tiny_tokenizer(), ["one prompt", "the other"], tokenizers={"far": tokenizer}, far=model
    )


def test_the_rate_falls_along_a_half_cosine() -> None:
    """The rates are those of torch's CosineAnnealingLR over 10 steps to a quarter."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.05)
    for step in range(1, 8):
        assert cosine_rate(0.2, step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        schedule.step()


def reference_search(
    logits: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor, rate: float, steps: int
) -> torch.Tensor:
    """Return the logits moved by torch's AdamW and autograd, one row after the other, in fp64."""
    moved = []
    for z, table, mean in zip(logits.double(), rows.double(), wanted.double(), strict=True):
        parameter = torch.nn.Parameter(z.clone())
        optimizer = torch.optim.AdamW([parameter], lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=rate / 4)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.kl_div((parameter.softmax(-1) @ table).log(), mean, reduction="sum")
            loss.backward()
            optimizer.step()
            schedule.step()
        moved.append(parameter.detach())
    return torch.stack(moved).float()


@pytest.mark.parametrize("seed", range(3))
def test_the_search_equals_torchs_adamw(seed: int) -> None:
    """The search of all rows at once equals autograd and AdamW row by row."""
    torch.manual_seed(seed)
    logits, rows = 2 * torch.randn(3, 6), torch.rand(3, 6, 9).softmax(-1) ** 2
    rows, wanted = rows / rows.sum(-1, keepdim=True), torch.rand(3, 9).softmax(-1)
    with torch.enable_grad():
        want = reference_search(logits, rows, wanted, 0.15, 5)
    torch.testing.assert_close(search(logits, rows, wanted, rate=0.15), want, rtol=0, atol=1e-4)


def test_the_search_moves_towards_the_mean_within_the_rate() -> None:
    """The divergence falls, no logit moves by more than the sum of the rates, and -inf stays -inf."""
    torch.manual_seed(0)
    logits, rows = torch.randn(1, 8), (5 * torch.randn(1, 8, 12)).softmax(-1)
    logits[0, 3] = -torch.inf
    wanted = torch.einsum("bt,bta->ba", torch.randn(1, 8).softmax(-1), rows)

    def divergence(z: torch.Tensor) -> float:
        q = torch.einsum("bt,bta->ba", z.softmax(-1), rows)
        return float((wanted * (wanted / q).log()).sum())

    got = search(logits, rows, wanted, rate=0.15)
    assert divergence(got) < divergence(logits) and got[0, 3] == -torch.inf
    kept = logits > -torch.inf
    assert float((got - logits)[kept].abs().max()) <= 5 * 0.15 * 1.05


def test_the_processor_equals_the_reference() -> None:
    """With whole distributions, the scores are those of all representations, their mean and torch's AdamW."""
    call = bound("deepen(models=['far'], topk=272, anchors=200)")
    torch.manual_seed(0)
    scores = torch.randn(2, 272)
    ids = call.inputs["input_ids"]
    part = call.composite.parts[0][1]
    (read, theirs), ours = part.helpers[0], part.main
    far = read(ids)
    best, top = far.topk(272, dim=-1)
    wanted = 0.5 * scores.softmax(-1) @ ours(torch.arange(272))
    wanted = wanted + 0.5 * torch.einsum("bt,bta->ba", best.softmax(-1), theirs(top))
    rows = ours(torch.arange(272)).expand(2, -1, -1)
    with torch.enable_grad():
        want = reference_search(scores.log_softmax(-1), rows, wanted, 0.15, 5).log_softmax(-1)
    torch.testing.assert_close(call.composite(ids, scores), want, rtol=0, atol=1e-3)


def test_without_effective_helpers_scores_are_unchanged() -> None:
    """Without rate, steps, weight or helpers, or with the main model as helper, the same scores are returned."""
    scores = torch.randn(2, 272)
    chains = ["deepen(models=['far'], rate=0.0)", "deepen(models=['far'], steps=0)"]
    chains += ["deepen(models=['far'], weights=[1.0, 0.0])", "deepen(models=['far'])"]
    for chain in chains:
        other = tiny_model() if chain == chains[-1] else None
        call = bound(chain, other)
        assert call.composite(call.inputs["input_ids"], scores) is scores
    call = logitkit.chain("deepen(models=[])").bind(tiny_model(), tiny_tokenizer(), ["one prompt", "the other"])
    assert call.composite(call.inputs["input_ids"], scores) is scores


def test_bad_input() -> None:
    """Weights that do not fit the models and too few anchors are named errors."""
    with pytest.raises(ParameterError, match="deepen: weights must be 2 finite numbers"):
        bound("deepen(models=['far'], weights=[1.0])")
    with pytest.raises(ParameterError, match="anchors must be a whole number >= 2"):
        bound("deepen(models=['far'], anchors=1)")
