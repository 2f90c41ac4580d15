"""Every processor answers alike for masks of -inf and of ``finfo.min``, in its scores and in its models' logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.registry.laws.subjects import Subject, subject_of

LEAST = torch.finfo(torch.float32).min


@contextmanager
def masked_models(value: float, kind: str = "") -> Iterator[None]:
    """Mask about a third of the ids in the logits of every model; models of other widths mask other ids.

    Args:
        value: the mask.
        kind: only models whose class has this in its name.
    """

    def mask(module: Any, inputs: Any, output: Any) -> Any:
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor) and hasattr(module, "generate") and kind in type(module).__name__:
            generator = torch.Generator().manual_seed(sum(map(ord, type(module).__name__)) + logits.shape[-1])
            masked = torch.rand(logits.shape[-1], generator=generator) < 0.35
            output.logits = logits.masked_fill(masked.to(logits.device), value)
        return output

    handle = torch.nn.modules.module.register_module_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


def answer(subject: Subject, scores: Tensor, value: float) -> Tensor:
    """Return normalised log-probabilities of a fresh processor whose models mask with this value."""
    # A byte model under a token model that forbids a token of the prompt has no answer: mask the bytes instead.
    with masked_models(value, "ByteModel" if subject.name == "byte_ensemble" else ""):
        processor = subject.make()
        answers = [processor(subject.rows(length), scores.clone()) for length in (1, 2, 5)]
    return with_infinite_masks(torch.stack(answers)).log_softmax(-1)


@pytest.mark.parametrize("name", list(logitkit.names()))
@pytest.mark.parametrize("mixed", [False, True])
def test_masks_of_scores_and_streams_mean_the_same(name: str, mixed: bool) -> None:
    """Masks by ``finfo.min`` in the scores, in the models or in both give the answer of masks by -inf."""
    subject = subject_of(name)
    scores = subject.scores(seed=3)
    generator = torch.Generator().manual_seed(5)
    masked = torch.rand(scores.shape, generator=generator) < 0.3
    scores = scores.masked_fill(masked, -torch.inf)
    finite = scores.masked_fill(scores == -torch.inf, LEAST)
    if mixed:
        finite = torch.where(torch.rand(scores.shape, generator=generator) < 0.5, finite, scores)
    want = answer(subject, scores, -torch.inf)
    assert not want.isnan().any()
    for got in (answer(subject, finite, LEAST), answer(subject, finite, -torch.inf), answer(subject, scores, LEAST)):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
