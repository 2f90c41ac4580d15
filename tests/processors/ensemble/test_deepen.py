"""DeePEn: representations by hand, the search against torch's own AdamW, and the processor against the same, slowly."""

from __future__ import annotations

import math

import pytest
import torch

import logitkit
from foreign import foreign_model, foreign_tokenizer
from logitkit.errors import ParameterError
from logitkit.processors.ensemble import AlignmentVocabulary, Representation, shared_tokens
from logitkit.processors.ensemble.deepen import cosine_rate, search
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def bound(chain: str, other: object = None) -> object:
    model = other or foreign_model()
    tokenizer = tiny_tokenizer() if other else foreign_tokenizer()
    return logitkit.chain(chain).bind(
        tiny_model(), tiny_tokenizer(), ["one prompt", "the other"], tokenizers={"far": tokenizer}, far=model
    )


def test_a_representation_by_hand() -> None:
    """Anchors along two axes: a token at 45 degrees is half each, one on an axis that axis's, whatever its length."""
    table = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 5.0], [-2.0, 0.0]])
    got = Representation(table, torch.tensor([0, 1]))(torch.tensor([[0, 2, 3]]))
    want = torch.tensor([[[1.0, math.exp(-100)], [0.5, 0.5], [math.exp(-100), 1.0]]])
    torch.testing.assert_close(got, want)


def test_the_rate_falls_along_a_half_cosine() -> None:
    """As torch's CosineAnnealingLR over 10 steps to a quarter."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.05)
    for step in range(1, 8):
        assert cosine_rate(0.2, step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        schedule.step()


def slow_search(
    logits: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor, rate: float, steps: int
) -> torch.Tensor:
    """One row after the other by torch's AdamW and autograd, in fp64."""
    found = []
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
        found.append(parameter.detach())
    return torch.stack(found).float()


@pytest.mark.parametrize("seed", range(3))
def test_the_search_is_torchs_own(seed: int) -> None:
    """All rows at once, with the gradient written out, against autograd row by row."""
    torch.manual_seed(seed)
    logits, rows = 2 * torch.randn(3, 6), torch.rand(3, 6, 9).softmax(-1) ** 2
    rows, wanted = rows / rows.sum(-1, keepdim=True), torch.rand(3, 9).softmax(-1)
    with torch.enable_grad():
        want = slow_search(logits, rows, wanted, 0.15, 5)
    torch.testing.assert_close(search(logits, rows, wanted, rate=0.15), want, rtol=0, atol=1e-4)


def test_the_search_moves_towards_the_mean_and_not_far() -> None:
    """The divergence falls, no logit moves more than the sum of the rates, and -inf stays."""
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


def test_shared_tokens_are_the_same_bytes_in_every_vocabulary() -> None:
    """The lowest main ids first."""
    main, far = (
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
        AlignmentVocabulary.of(foreign_model(), foreign_tokenizer()),
    )
    ours, (theirs,) = shared_tokens(main, [far], 20)
    assert ours.tolist() == list(range(20))
    assert [main.vocabulary.token_bytes[i] for i in ours] == [far.vocabulary.token_bytes[i] for i in theirs]


def test_the_processor_equals_the_slow_method() -> None:
    """With whole distributions: representations of all tokens, the mean, torch's AdamW."""
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
        want = slow_search(scores.log_softmax(-1), rows, wanted, 0.15, 5).log_softmax(-1)
    torch.testing.assert_close(call.composite(ids, scores), want, rtol=0, atol=1e-3)


def test_nothing_to_add_is_an_exact_no_op() -> None:
    """No rate, no steps, no weight, no helper, the generating model itself."""
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
    with pytest.raises(ParameterError, match="deepen: weights must be 2 finite numbers"):
        bound("deepen(models=['far'], weights=[1.0])")
    with pytest.raises(ParameterError, match="anchors must be a whole number >= 2"):
        bound("deepen(models=['far'], anchors=1)")
