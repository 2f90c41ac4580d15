"""Frequency and presence penalty by hand and against a count in a loop; padding, begin token and prompt."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.processors.engine import Prompts
from logitkit.processors.samplers import FrequencyPenalty, PresencePenalty, RowTokens, token_counts
from logitkit.processors.samplers.penalties import penalised
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PAD, BEGIN = 3, 4
PROMPTS = Prompts(
    ids=torch.tensor([[PAD, PAD, BEGIN, 0], [BEGIN, 1, 2, 0]]),
    mask=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
    texts=("", ""),
    messages=(None, None),
    adds_specials=True,
)
ROWS = torch.tensor([[PAD, PAD, BEGIN, 0, 1, 1, PAD], [BEGIN, 1, 2, 0, 1, 0, 1]])


def rows(prompt: bool) -> RowTokens:
    return RowTokens(prompts=PROMPTS, prompt=prompt, begin_tokens=[BEGIN])


def test_counts_by_hand() -> None:
    """New tokens alone, then with the prompt; left padding and the begin token never count, a new PAD does."""
    got = FrequencyPenalty(penalty=1.0, rows=rows(False))(ROWS, torch.zeros(2, 5))
    assert got.tolist() == [[0.0, -2.0, 0.0, -1.0, 0.0], [-1.0, -2.0, 0.0, 0.0, 0.0]]
    got = FrequencyPenalty(penalty=1.0, rows=rows(True))(ROWS, torch.zeros(2, 5))
    assert got.tolist() == [[-1.0, -2.0, 0.0, -1.0, 0.0], [-2.0, -3.0, -1.0, 0.0, 0.0]]
    got = PresencePenalty(penalty=0.5, rows=rows(True))(ROWS, torch.zeros(2, 5))
    assert got.tolist() == [[-0.5, -0.5, 0.0, -0.5, 0.0], [-0.5, -0.5, -0.5, 0.0, 0.0]]


def test_a_window_counts_the_last_tokens_that_count() -> None:
    """Of the new tokens 1 1 PAD the last two; with the prompt, a window that reaches into it."""
    got = FrequencyPenalty(penalty=1.0, window=2, rows=rows(False))(ROWS, torch.zeros(2, 5))
    assert got.tolist() == [[0.0, -1.0, 0.0, -1.0, 0.0], [-1.0, -1.0, 0.0, 0.0, 0.0]]
    got = FrequencyPenalty(penalty=1.0, window=5, rows=rows(True))(ROWS, torch.zeros(2, 5))
    assert got.tolist() == [[-1.0, -2.0, 0.0, -1.0, 0.0], [-2.0, -2.0, -1.0, 0.0, 0.0]]


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(st.integers(0, 6), max_size=12),
    mask=st.lists(st.booleans(), min_size=12, max_size=12),
    window=st.one_of(st.none(), st.integers(1, 12)),
)
def test_counts_equal_a_loop(row: list[int], mask: list[bool], window: int | None) -> None:
    """Ids beyond the scores are left out; the window is of tokens that count."""
    real = [token for token, counts in zip(row, mask, strict=False) if counts]
    counter = Counter(real if window is None else real[-window:])
    ids, counted = torch.tensor([row], dtype=torch.long), torch.tensor([mask[: len(row)]], dtype=torch.bool)
    assert token_counts(ids, counted, 5, window=window)[0].tolist() == [counter[token] for token in range(5)]


def test_negative_penalties_lift_no_mask() -> None:
    """A masked token stays masked, a possible one gains."""
    scores = torch.tensor([[-torch.inf, 1.0, 1.0]])
    assert FrequencyPenalty(penalty=-0.5)(torch.tensor([[0, 1]]), scores).tolist() == [[-torch.inf, 1.5, 1.0]]


def test_huge_penalties_leave_a_choice() -> None:
    """Only penalised tokens are possible: the row is shifted by the smaller penalty."""
    scores = torch.tensor([[1.0, 2.0, -torch.inf]])
    got = penalised(scores, torch.tensor([[3e38, 1e38, 0.0]]))
    assert float(got[0, 1]) == 2.0 and float(got[0].softmax(-1)[1]) == 1.0
    half = penalised(scores.half(), torch.tensor([[7e4, 6.9999e4, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(half[0, :2].float(), torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
def test_bound_penalties_count_new_tokens_by_default(name: str) -> None:
    """Of a padded batch; the begin token of the tokenizer is in no count."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for options, in_prompt in (("", False), (", prompt=True", True)):
        call = logitkit.chain(f"{name}(1.0{options})").bind(model, tokenizer, ["aab", "b"])
        a, b, c = (tokenizer(text)["input_ids"][0] for text in "abc")
        begin = tokenizer.bos_token_id
        ids = torch.cat([call.inputs["input_ids"], torch.tensor([[c, begin]] * 2)], dim=1)
        lost = -call.composite(ids, torch.zeros(2, 272))
        twice = 2.0 if name == "frequency_penalty" else 1.0
        assert lost[0, [a, b, c]].tolist() == ([twice, 1.0, 1.0] if in_prompt else [0.0, 0.0, 1.0])
        assert lost[1, [a, b, c]].tolist() == ([0.0, 1.0, 1.0] if in_prompt else [0.0, 0.0, 1.0])
        assert float(lost[:, [begin, tokenizer.pad_token_id]].abs().sum()) == 0
        assert float(lost.sum()) == float(lost[:, [a, b, c]].sum())


def test_the_start_token_of_a_decoder_does_not_count() -> None:
    """Rows of an encoder-decoder model hold the decoder's tokens; the first one is no text."""
    model = encoder_decoder_model()
    call = logitkit.chain("presence_penalty(1.0, prompt=True)").bind(model, tiny_tokenizer(), "ab")
    start = model.config.decoder_start_token_id
    lost = -call.composite(torch.tensor([[start, 98]]), torch.zeros(1, 272))
    assert lost[0].nonzero()[:, 0].tolist() == [98]
