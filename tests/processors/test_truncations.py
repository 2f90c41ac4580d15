"""Processors of transformers in a chain equal the settings of `generate`: under beams, and for end tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.engine import read_prompts
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.truncations import TopK
from logitkit.processors.warpers import BadWords, SuppressTokens
from logitkit.registry.laws import tiny_model, tiny_tokenizer

END = 257
TRUNCATIONS = {
    "top_k(1)": {"top_k": 1},
    "top_p(0.05)": {"top_p": 0.05},
    "min_p(0.99)": {"min_p": 0.99},
    "typical_p(0.05)": {"typical_p": 0.05},
    "epsilon_cutoff(0.9)": {"epsilon_cutoff": 0.9},
    "eta_cutoff(0.9)": {"eta_cutoff": 0.9},
}
SAMPLING: dict[str, Any] = {"do_sample": True, "num_beams": 3, "max_new_tokens": 6}


@pytest.mark.parametrize("ends", [[END], [END, 5, 6]])
@pytest.mark.parametrize("chain", TRUNCATIONS)
def test_a_truncation_under_beams_equals_the_setting_of_generate(chain: str, ends: list[int]) -> None:
    """Every processed score is the one that transformers computes, which keeps one token more than there are ends."""
    model = copy.copy(tiny_model())
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.top_k = 0
    call = logitkit.chain(chain).bind(model, tiny_tokenizer(), "a prompt")
    asked = {"eos_token_id": ends, "return_dict_in_generate": True, "output_scores": True, **SAMPLING}
    torch.manual_seed(0)
    got = call.generate(**asked)
    torch.manual_seed(0)
    want = model.generate(**call.inputs, **TRUNCATIONS[chain], **asked)
    assert torch.equal(got.sequences, want.sequences)
    for ours, theirs in zip(got.scores, want.scores, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert int(torch.isfinite(ours).sum(-1).min()) >= len(ends) + 1


def test_without_beams_one_token_is_kept() -> None:
    """By hand: top_k(1) keeps one token; with beams and two end tokens it keeps three."""
    settings = CallSettings(tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "ab"))
    processor, scores = TopK(top_k=1, settings=settings), torch.arange(5.0)[None]
    assert processor(torch.tensor([[1]]), scores).isfinite().tolist() == [[False] * 4 + [True]]
    settings.tell({"num_beams": 2, "eos_token_id": [1, 2]})
    assert processor(torch.tensor([[1]]), scores).isfinite().tolist() == [[False] * 2 + [True] * 3]


@pytest.mark.parametrize("words", [[[END]], [[END], [98]], [[97, END], [99]]])
@pytest.mark.parametrize("told", [{}, {"eos_token_id": 98}])
def test_bad_words_equals_the_setting_of_generate(words: list[list[int]], told: dict[str, int]) -> None:
    """An end token alone stays possible, also an end token that `generate` is told."""
    call = logitkit.chain([{"name": "bad_words", "params": {"bad_words_ids": words}}]).bind(
        tiny_model(), tiny_tokenizer(), "a prompt"
    )
    asked = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_scores": True} | told
    got, want = call.generate(**asked), tiny_model().generate(**call.inputs, bad_words_ids=words, **asked)
    assert torch.equal(got.sequences, want.sequences) and torch.equal(got.scores[0], want.scores[0])


@pytest.mark.parametrize("words", ["[]", "[[]]", "[[-1]]"])
def test_wrong_bad_words_are_the_users_mistake(words: str) -> None:
    """The error states the rule, and no plugin is blamed."""
    with pytest.raises(ParameterError, match="bad_words: bad_words_ids must be one or more lists of token ids >= 0"):
        logitkit.chain(f"bad_words({words})")


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("bad_words([[5, 272], [9000]])", r"bad_words: bad_words_ids must be token ids below 272.*, got \[272, 9000\]"),
        ("suppress_tokens([271, 272])", r"suppress_tokens: suppress_tokens must be token ids below 272.*, got \[272\]"),
        ("suppress_tokens([3, -1])", r"suppress_tokens: suppress_tokens must be a list of token ids >= 0"),
    ],
)
def test_tokens_outside_the_vocabulary_are_refused_at_bind(chain: str, message: str) -> None:
    """The error states the size of the vocabulary and the ids; the last ids of the vocabulary are accepted."""
    with pytest.raises(ParameterError, match=message):
        logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "a prompt")
    for last in ("suppress_tokens([0, 271])", "bad_words([[0], [271]])", "suppress_tokens([])"):
        logitkit.chain(last).bind(tiny_model(), tiny_tokenizer(), "a prompt")


def test_negative_tokens_are_refused_without_a_chain() -> None:
    """The classes check ids themselves."""
    with pytest.raises(ParameterError, match="suppress_tokens must be token ids >= 0"):
        SuppressTokens(suppress_tokens=[-1])
    for words in ([], [[]], [[3, -1]]):
        with pytest.raises(ParameterError, match="bad_words_ids must be one or more lists of token ids >= 0"):
            BadWords(bad_words_ids=words)


def test_suppress_tokens_equals_the_setting_of_generate() -> None:
    """The processed scores are those that transformers computes from ``suppress_tokens``."""
    call = logitkit.chain("suppress_tokens([92, 98, 271])").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    asked = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    got = call.generate(**asked)
    want = tiny_model().generate(**call.inputs, suppress_tokens=[92, 98, 271], **asked)
    assert torch.equal(got.sequences, want.sequences) and torch.equal(got.scores[0], want.scores[0])


def test_wrong_parameters_are_refused_by_the_constructor() -> None:
    """The truncation of transformers is built at once, so a wrong parameter is no surprise at the first step."""
    with pytest.raises(ValueError, match="top_k"):
        TopK(top_k=0)
