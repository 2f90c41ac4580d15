"""The mask of a decoder's prompt reaches every second stream of an encoder-decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, T5ForConditionalGeneration

import logitkit
from fakes import encoder_decoder_model
from logitkit.registry.laws import tiny_tokenizer
from media_models import bart

PROMPTS = ["a fox", "the old man"]
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
SCORES = {"return_dict_in_generate": True, "output_scores": True}
CASCADE = "cascade(large='large', alpha=0.0)"  # every token is the large model's
MODELS: dict[str, Any] = {"t5": encoder_decoder_model, "bart": bart}


def told(model: Any, *, start: bool, other: bool = False) -> dict[str, Any]:
    """Return decoder prompts of 2 and 4 tokens, padded on the left, with their mask."""
    begin = model.config.decoder_start_token_id
    first = [begin] if start else []
    rows = [[*first, 258, 258, 97, 98], [*first, 99, 100, 101, 102]]
    mask = [[*[1] * len(first), 0, 0, 1, 1], [*[1] * len(first), *([0, 1, 1, 1] if other else [1] * 4)]]
    return {"decoder_input_ids": torch.tensor(rows), "decoder_attention_mask": torch.tensor(mask)}


def bind(kind: str, chain: str = CASCADE) -> Any:
    """Bind a chain whose large model is another model of the same kind."""
    resources = {"large": MODELS[kind](1)} if "large" in chain else {}
    return logitkit.chain(chain).bind(MODELS[kind](0), tiny_tokenizer(), PROMPTS, **resources)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 2, "num_return_sequences": 2}])
@pytest.mark.parametrize("kind", MODELS)
def test_a_large_model_reads_the_mask(kind: str, settings: dict[str, Any], start: bool) -> None:
    """A cascade that always defers gives what the large model gives under the same mask, in a bare generate too."""
    model, call = MODELS[kind](0), bind(kind)
    masked, common = told(model, start=start), {**SCORES, **GREEDY, **settings}
    want = MODELS[kind](1).generate(**call.inputs, **masked, **common)
    unmasked = MODELS[kind](1).generate(**call.inputs, decoder_input_ids=masked["decoder_input_ids"], **common)
    assert float((want.scores[0] - unmasked.scores[0]).abs().max()) > 0.01
    got = call.generate(**masked, **common)
    bare = call.settings_for(**masked, **common)
    for output in (got, model.generate(**call.inputs, logits_processor=call.processors, **bare)):
        assert torch.equal(output.sequences, want.sequences)
        logp, expected = (torch.stack(each.scores).log_softmax(-1) for each in (output, want))
        torch.testing.assert_close(logp, expected, rtol=0, atol=1e-4)


def test_another_mask_is_read_anew() -> None:
    """The next generate of a call reads its own mask, or none."""
    model, call = encoder_decoder_model(0), bind("t5")
    for other in (False, True):
        masked = told(model, start=True, other=other)
        want = encoder_decoder_model(1).generate(**call.inputs, **masked, **GREEDY)
        assert torch.equal(call.generate(**masked, **GREEDY), want)
    del masked["decoder_attention_mask"]
    want = encoder_decoder_model(1).generate(**call.inputs, **masked, **GREEDY)
    assert torch.equal(call.generate(**masked, **GREEDY), want)


class Kept(LogitsProcessor):
    """Keeps rows and scores."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append((input_ids, scores))
        return scores


@pytest.mark.parametrize("chain", ["cfg(2.0, negative='no')", "cfg(2.0, negative=['no', 'a long one'])"])
def test_a_negative_prompt_reads_the_mask(chain: str) -> None:
    """Every distribution is that of two models which read each row alone, without the padding of the decoder."""
    model: T5ForConditionalGeneration = encoder_decoder_model(0)
    call, kept = bind("t5", chain), Kept()
    call.generate(**told(model, start=True), logits_processor=[kept], **GREEDY)
    negatives = ["no", "a long one"] if "long" in chain else ["no", "no"]
    for rows, scores in kept.seen:
        for number, row in enumerate(rows):
            mask = torch.ones_like(row[None])
            mask[:, 1:3] = number
            p, q = (
                model(
                    input_ids=tiny_tokenizer()(text, return_tensors="pt")["input_ids"],
                    decoder_input_ids=row[None],
                    decoder_attention_mask=mask,
                ).logits[0, -1]
                for text in (PROMPTS[number], negatives[number])
            )
            p, q = p.log_softmax(-1), q.log_softmax(-1)
            want, got = (q + 2 * (p - q)).log_softmax(-1), scores[number].log_softmax(-1)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-3)
