"""Processors of transformers in a chain: padding is hidden from them, and neutral parameters change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

import logitkit
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.engine import Binding, Prompts
from logitkit.processors.warpers import MinNewTokens, NoRepeatNgram, RepetitionPenalty
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PAD = 3
PROMPTS = Prompts(
    ids=torch.tensor([[PAD, PAD, 0], [1, 2, 0]]),
    mask=torch.tensor([[0, 0, 1], [1, 1, 1]]),
    texts=("", ""),
    messages=(None, None),
    adds_specials=False,
)
ROWS = torch.tensor([[PAD, PAD, 0, 1], [1, 2, 0, 1]])


def test_repetition_penalty_by_hand() -> None:
    """A positive score is halved and a negative one doubled for tokens in the row; padding is not in the row."""
    scores = torch.tensor([[1.0, -1.0, 1.0, 1.0]] * 2)
    got = RepetitionPenalty(penalty=2.0, prompts=PROMPTS)(ROWS, scores)
    assert got.tolist() == [[0.5, -2.0, 1.0, 1.0], [0.5, -2.0, 0.5, 1.0]]


def test_no_repeat_ngram_by_hand() -> None:
    """The bigram (1, 2) of the second row may not occur again; the bigram of padding in the first row is ignored."""
    got = NoRepeatNgram(size=2, prompts=PROMPTS)(ROWS, torch.zeros(2, 4))
    assert got.tolist() == [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, 0.0]]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RepetitionPenalty(penalty=1.7), RepetitionPenaltyLogitsProcessor(1.7)),
        (NoRepeatNgram(size=1), NoRepeatNGramLogitsProcessor(1)),
    ],
)
def test_without_padding_they_equal_transformers(ours: Any, theirs: Any) -> None:
    """Without prompts every token counts, as in the classes of transformers."""
    scores = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(ROWS, scores.clone()), theirs(ROWS, scores.clone()), rtol=0, atol=0)


def test_min_new_tokens_by_hand() -> None:
    """The end token is impossible after one new token, and possible after two."""
    processor = MinNewTokens(count=2, width=3, ends=[2])
    assert processor(ROWS, torch.zeros(2, 3))[:, 2].tolist() == [-torch.inf, -torch.inf]
    longer = torch.cat([ROWS, ROWS[:, :1]], dim=1)
    assert processor(longer, torch.zeros(2, 3))[:, 2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("make", [lambda: RepetitionPenalty(penalty=1.0), lambda: MinNewTokens(count=0, ends=[2])])
def test_neutral_parameters_return_the_scores_themselves(make: Any) -> None:
    """The result is the same tensor object."""
    scores = torch.zeros(2, 4)
    assert make()(ROWS, scores) is scores


def test_a_wrong_parameter_is_refused() -> None:
    """The error names the class, the parameter and its rule."""
    with pytest.raises(ParameterError, match="RepetitionPenalty: penalty must be a finite number > 0, got 0"):
        RepetitionPenalty(penalty=0.0)
    with pytest.raises(ParameterError, match="NoRepeatNgram: size must be a whole number >= 1, got 0"):
        NoRepeatNgram(size=0)


def test_a_model_without_an_end_token_is_refused() -> None:
    """`min_new_tokens` has nothing to forbid when neither model nor tokenizer has an end token."""

    class Endless:
        """A model and a tokenizer without an end token."""

        eos_token_id = None
        generation_config: Any = type("Settings", (), {"eos_token_id": None})

    with pytest.raises(ModelError, match="min_new_tokens: the model must have an end token"):
        MinNewTokens.bind(Binding(Endless(), Endless(), PROMPTS), count=2)


def test_a_padded_batch_equals_its_rows_alone() -> None:
    """In a chain, greedy text of a padded batch equals the text of each prompt alone."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = ["one prompt", "a second, longer prompt"]
    chain = "repetition_penalty(1.5) | no_repeat_ngram(2) | min_new_tokens(6)"
    batch = logitkit.generate(model, tokenizer, prompts, chain=chain, max_new_tokens=8, do_sample=False).texts
    alone = [
        logitkit.generate(model, tokenizer, text, chain=chain, max_new_tokens=8, do_sample=False).texts[0]
        for text in prompts
    ]
    assert batch == alone
