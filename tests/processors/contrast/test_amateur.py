"""The amateur of contrastive decoding: its temperature and its window of the prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import Contrastive, contrastive
from logitkit.registry.laws import check_modes, parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.fixed_streams import logits_with_ties
from reference.recompute import Recompute


def test_temperature_by_hand() -> None:
    """Expert (.5, .3, .2) and amateur (.2, .4, .4) at temperature 1/2, which is (1/9, 4/9, 4/9); p / q, normalised."""
    expert, amateur = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.2, 0.4, 0.4]]).log()
    want = torch.tensor([[0.5 * 9, 0.3 * 9 / 4, 0.2 * 9 / 4]])
    got = contrastive(expert, amateur, beta=1.0, alpha=0.1, temperature=0.5)
    torch.testing.assert_close(got.exp(), want / want.sum())


@given(seed=st.integers(0, 999), temperature=st.sampled_from([0.5, 1.0, 1.5]))
@settings(max_examples=30, deadline=None)
def test_temperature_equals_divided_logits(seed: int, temperature: float) -> None:
    """Slow reference: the logits of the amateur are divided by the temperature before anything else."""
    expert, amateur = logits_with_ties(seed), logits_with_ties(seed + 1)
    want = contrastive(expert, amateur / temperature, beta=1.0)
    processor = Contrastive(amateur=lambda rows: amateur, beta=1.0, temperature=temperature)
    torch.testing.assert_close(processor(torch.zeros(4, 1).long(), expert), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [1, 3, 100, None])
def test_the_window_cuts_the_prompt_of_the_amateur(window: int | None) -> None:
    """The amateur reads the last tokens of each prompt and the whole continuation; 1 is the authors' setting."""
    text = f"contrastive(amateur='small', beta=1.0, temperature=0.5, window={window})"
    call = logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), ["a prompt", "another one"], small=tiny_model(1))
    own = [call.prompts.tokens(number)[-(window or 100) :] for number in range(2)]
    amateur = Recompute(tiny_model(1), own, call.prompts.ids)
    rows = call.inputs["input_ids"]
    for step in range(3):
        scores = torch.randn(2, 272, generator=torch.Generator().manual_seed(step))
        want = contrastive(scores, amateur(rows), beta=1.0, temperature=0.5)
        torch.testing.assert_close(call.composite(rows, scores), want, rtol=1e-4, atol=1e-4)
        rows = torch.cat([rows, torch.tensor([[step], [step + 9]])], dim=1)


def test_wrong_values_are_refused() -> None:
    """A window has a token, and a temperature is above 0."""
    for text, rule in (("window=0", "window must be a whole number >= 1"), ("temperature=0.0", "temperature must be")):
        with pytest.raises(ParameterError, match=f"contrastive: {rule}"):
            logitkit.chain(f"contrastive(amateur='small', {text})")


AUTHORS = dataclasses.replace(
    logitkit.describe("contrastive"),
    name="contrastive_authors",
    example="contrastive_authors(amateur='other', beta=1.0, alpha=0.1, temperature=0.5, window=1)",
)


@parametrize_with_laws([AUTHORS])
def test_the_published_setting_keeps_the_laws(check: Callable[[], None]) -> None:
    """Beta 1, alpha 0.1, temperature 0.5 and an amateur that reads the last token of the prompt."""
    check()


def test_the_published_setting_is_right_in_the_modes() -> None:
    """Padded batches, beams and assisted decoding equal recomputation from scratch."""
    results = check_modes(AUTHORS, ["greedy", "beams", "left_padding", "assisted"])
    assert all(result.right for result in results), results
