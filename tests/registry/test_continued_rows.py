"""Rows that begin with a bound prompt: continuations pass, longer prompts give one warning."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ContinuationWarning, ModeError
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 258}
FIRST, SECOND = "user: hello. you: ", "and what else? you: "
CHAINS = ["cfg(1.5, negative='a fish')", "top_k(9)", "min_new_tokens(2) | repetition_penalty(1.1)"]


def bound(chain: str = CHAINS[0], prompts: Any = FIRST) -> Any:
    """A chain bound to the tiny model."""
    return logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts)


def bare(call: Any, ids: Any, **settings: Any) -> Any:
    """Run ``model.generate`` with the processors of a call, on rows of our own."""
    given = GREEDY | {"logits_processor": call.processors, "attention_mask": torch.ones_like(ids)} | settings
    return tiny_model().generate(ids, **given)


def followed_by(ids: torch.Tensor, text: str) -> torch.Tensor:
    """Rows with a text behind them."""
    tail = torch.tensor(tiny_tokenizer()(text)["input_ids"]).expand(len(ids), -1)
    return torch.cat([ids, tail], dim=1)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("before", ["nothing", "a greedy text", "beams", "a warning"])
def test_the_second_turn_of_a_chat_warns_once(chain: str, before: str) -> None:
    """Turn two with the processors of turn one: after the generated answer, or instead of one."""
    call = bound(chain)
    settings = {"num_beams": 3} if before == "beams" else {}
    rows = call.inputs["input_ids"] if before == "nothing" else bare(call, call.inputs["input_ids"], **settings)
    with pytest.warns(ContinuationWarning, match=r"bind the chain to the longer prompts.*call\.continuing\(\)"):
        bare(call, followed_by(rows, SECOND))
    bare(call, followed_by(rows, "another turn"))  # warnings are errors: the second one would fail


@pytest.mark.parametrize("length", [2, 4, 5, 6, 9])
def test_an_edited_answer_of_any_length_is_noticed(length: int) -> None:
    """An answer that the user replaced is not the call's own, shorter, as long, or longer."""
    call = bound()
    bare(call, call.inputs["input_ids"])
    with pytest.warns(ContinuationWarning):
        bare(call, followed_by(call.inputs["input_ids"], "xyzxyzxyz"[:length]))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"num_beams": 2, "do_sample": True}, {"do_sample": True}])
@pytest.mark.parametrize("prompts", [FIRST, [FIRST, FIRST]])
def test_continuing_the_own_output_is_silent(settings: dict[str, Any], prompts: Any) -> None:
    """Each `generate` takes the rows of the last one, with changing modes between them."""
    call = bound(prompts=prompts)
    rows = call.inputs["input_ids"]
    for more in (settings, {}, settings, {"prompt_lookup_num_tokens": 2} if len(rows) == 1 else {}):
        rows = bare(call, rows, **more)
    assert rows.shape[1] == call.prompts.width + 20
    bare(call, call.inputs["input_ids"])


@pytest.mark.parametrize(
    "settings",
    [
        {"assistant_model": tiny_model(1)},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_early_exit": 1},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"cache_implementation": "static", "disable_compile": True},
    ],
)
def test_no_mode_of_generating_warns(settings: dict[str, Any]) -> None:
    """Drafts, lookups, beams, samples and a static cache ask about known rows; a used call too."""
    call = bound(prompts="the sea the sea the sea the")
    for _ in range(2):
        bare(call, call.inputs["input_ids"], **settings)
        call.generate(**GREEDY | settings)


def test_a_stated_continuation_is_silent_and_equals_one_go() -> None:
    """A fresh call continues the text of another one when told so."""
    whole = bare(bound(), bound().inputs["input_ids"], max_new_tokens=10)
    half = bound().generate(**GREEDY)
    assert torch.equal(bare(bound().continuing(), half), whole)
    with pytest.warns(ContinuationWarning):
        assert torch.equal(bare(bound(), half), whole)


def test_a_batch_with_a_longer_prompt_warns() -> None:
    """One row of a batch is the call's own, the other one is not."""
    call = bound(prompts=[FIRST, FIRST])
    rows = bare(call, call.inputs["input_ids"])
    rows[1, -2] = 65
    with pytest.warns(ContinuationWarning):
        bare(call, rows)


@pytest.mark.parametrize("chain", [*CHAINS, "bad_words([[271]])", "ngram_context(0.5)"])
@pytest.mark.parametrize("sample", [False, True])
def test_rows_of_another_vocabulary_are_refused_with_their_reason(chain: str, sample: bool) -> None:
    """A bare universal assisted decoding asks the chain about tokens of the assistant; the error says so."""
    call = bound(chain)
    assistant = {"assistant_tokenizer": foreign_tokenizer(), "tokenizer": tiny_tokenizer()}
    assistant |= {"assistant_model": type(foreign_model())(foreign_model().config)}  # sampling prunes its head
    with pytest.raises(ModeError, match=r"272 columns of the generating model, got \d+; .*assistant_tokenizer"):
        bare(call, call.inputs["input_ids"], do_sample=sample, **assistant)
    with pytest.raises(ModeError, match=r"assistant_tokenizer must not be given to model\.generate"):
        call.settings_for(do_sample=sample, **assistant)


def test_an_empty_chain_is_asked_about_any_rows() -> None:
    """Without processors there is nothing to ask: transformers' own universal assisted decoding, and no warning."""
    call = bound("")
    assistant = {"assistant_model": foreign_model(), "assistant_tokenizer": foreign_tokenizer()}
    rows = bare(call, call.inputs["input_ids"], tokenizer=tiny_tokenizer(), **assistant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare(call, followed_by(rows, SECOND))
