"""Inspections: each move equals a slow recomputation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import logitkit
from fakes import encoder_decoder_model
from inspections import inspect_tiny_model
from logitkit.errors import ParameterError
from logitkit.inspection import html_page, inspect
from logitkit.inspection.moves import GENERATING_MODEL
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def recomputed(ids: list[int]) -> torch.Tensor:
    """Return the next-token probabilities of the tiny model, computed without a cache in float64."""
    with torch.no_grad():
        return tiny_model()(torch.tensor([ids])).logits[0, -1].double().softmax(-1)


def divergence(p: list[float], q: list[float]) -> float:
    """Return the Jensen-Shannon divergence in bits, computed from its definition."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    halves = [sum(a * math.log2(a / m) for a, m in zip(x, middle, strict=True) if a > 0) for x in (p, q)]
    return sum(halves) / 2


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "seed": 3}])
def test_every_move_equals_recomputation(settings: dict[str, Any]) -> None:
    """Each move equals the recomputed distributions before and after the chain.

    Temperature 0.5 squares the probabilities, and `suppress_tokens` then bans the most probable first token.
    """
    banned = int(recomputed(tiny_tokenizer()("Once")["input_ids"]).argmax())
    inspection = inspect_tiny_model(f"temperature(0.5) | suppress_tokens([{banned}])", **settings)
    row, width = inspection.completion.row, inspection.completion.call.prompts.width
    assert len(inspection.moves) == len(row) - width > 0 and inspection.moves[0].changed
    for place, move in enumerate(inspection.moves):
        before = recomputed(row[: width + place])
        after = before**2
        after[banned] = 0
        after /= after.sum()
        assert move.token == row[width + place]
        assert move.js_bits == pytest.approx(divergence(before.tolist(), after.tolist()), abs=1e-5)
        assert move.probability == pytest.approx((before[move.token].item(), after[move.token].item()), abs=1e-5)
        assert move.before[0] == (int(before.argmax()), pytest.approx(before.max().item(), abs=1e-5))
        assert move.after[0] == (int(after.argmax()), pytest.approx(after.max().item(), abs=1e-5))
        assert move.changed == (before.argmax() != after.argmax())
        for probabilities, entropy, surprisal in zip((before, after), move.entropy, move.surprisal, strict=True):
            possible = probabilities[probabilities > 0]
            assert entropy == pytest.approx(float(-(possible * possible.log2()).sum()), abs=1e-5)
            assert surprisal == pytest.approx(-math.log2(probabilities[move.token]), abs=1e-5)
        assert move.rank[0] == 1 + int((before > before[move.token]).sum())
        assert [step.processor for step in move.steps] == ["temperature", "suppress_tokens"]
        if not settings:
            assert move.rank[1] == 1


def test_a_certain_token_has_neither_entropy_nor_surprisal() -> None:
    """After top_k(1) one token is possible: 0 bits, and no -0 or NaN from the impossible ones."""
    moves = inspect_tiny_model("top_k(1)").moves
    assert [(move.entropy[1], move.surprisal[1]) for move in moves] == [(0.0, 0.0)] * 8
    assert all(str(move.entropy[1]) == str(move.surprisal[1]) == "0.0" for move in moves)


def test_recording_leaves_the_continuation_unchanged() -> None:
    """The ids equal those of a call without an observer, and plain decoding moves no distribution."""
    call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), "Once")
    want = call.generate(max_new_tokens=8, do_sample=False)
    assert inspect_tiny_model("cfg(2.0)").completion.row == want[0].tolist()
    assert all(move.js_bits == 0 and not move.changed for move in inspect_tiny_model("").moves)


def test_forwards_add_up_to_the_trace() -> None:
    """A lazy second stream spends one forward at each token whose gate fired, and none at the others."""
    inspection = inspect_tiny_model("uscd(gate=0.3, lame=['another'])", streams="lazy", max_new_tokens=24)
    asked = [
        sum(count for name, count in move.forwards.items() if name != GENERATING_MODEL) for move in inspection.moves
    ]
    assert asked == [int(move.steps[0].notes["fired"]) for move in inspection.moves]
    assert 0 < sum(asked) == sum(inspection.completion.trace.forwards.values()) < 24


def test_notes_of_processors_are_kept_and_shown() -> None:
    """A move keeps the notes of each processor, and the page shows the notes."""
    inspection = inspect_tiny_model("uscd(gate=1.0, lame=['another'])")
    assert all(set(move.steps[0].notes) == {"gate", "fired"} for move in inspection.moves)
    assert "fired yes" in html_page(inspection)


def test_tokens_match_the_row_of_an_encoder_decoder_and_of_a_cut_prompt() -> None:
    """The tokens of the moves are the new tokens of the row, also where the row does not start with the prompt."""
    inspection = inspect(encoder_decoder_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=5)
    assert [move.token for move in inspection.moves] == inspection.completion.row[1:]
    cut = inspect_tiny_model("byte_boundary()", "Onc")
    assert [move.token for move in cut.moves] == cut.completion.row[cut.completion.call.prompts.width :]


@pytest.mark.parametrize("setting", [{"num_beams": 2}, {"num_return_sequences": 2}, {"prompt_lookup_num_tokens": 3}])
def test_settings_of_several_rows_are_refused(setting: dict[str, Any]) -> None:
    """Beams, several sequences, prompt lookup (which rewinds rows) and several prompts are refused."""
    with pytest.raises(ParameterError, match="follows one row"):
        inspect_tiny_model("", **setting)
    with pytest.raises(ParameterError, match="one prompt"):
        inspect_tiny_model("", ["a", "b"])
