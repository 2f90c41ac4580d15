"""Budgets equal definitions that read the whole text anew, in every mode of generating."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.processors.samplers import LengthTarget, ThinkingBudget
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

END = 257
VOCABULARY = 272


def thinking(prompts: Any = "a prompt", **parameters: Any) -> tuple[Any, ThinkingBudget]:
    """The call and its step over the tiny model, whose tokens are bytes."""
    given = {"open": "<t>", "close": "</t>", "tokens": 3} | parameters
    call = logitkit.chain([{"name": "thinking_budget", "params": given}]).bind(tiny_model(), tiny_tokenizer(), prompts)
    return call, call.composite.parts[0][1]


def forced(call: Any, step: ThinkingBudget, text: str) -> str:
    """The token that is forced after the prompt and a text; empty: none is."""
    tail = torch.tensor([tiny_tokenizer()(text)["input_ids"]], dtype=torch.long)
    possible = torch.isfinite(step(torch.cat([call.prompts.ids, tail], dim=1), torch.zeros(1, VOCABULARY))[0])
    if possible.all():
        return ""
    (token,) = possible.nonzero()[:, 0].tolist()
    return str(tiny_tokenizer().decode([token]))


def test_by_hand() -> None:
    """Three tokens, then the closing ones in order; nothing without a block, behind one, or before the budget ends."""
    call, step = thinking(closing_text=".")
    cases = {"": "", "a": "", "<t>": "", "<t>ab": "", "<t>abc": ".", "<t>abc.": "<", "<t>abc.<": "/"}
    cases |= {"<t>abc.</t": ">", "<t>abc.</t>": "", "<t>abc.</t> and": "", "<t>abc.</t><t>ab": ""}
    cases |= {"<t>a</t>bcdef": "", "<t>abc.</t><t>abc": ".", "</t><t>abc": ".", "<<t>abc": ".", "<t><t>": "."}
    assert {text: forced(call, step, text) for text in cases} == cases


def test_a_row_that_did_not_follow_begins_again() -> None:
    """The position is read off the end of the row: the longest end of it that begins the closing tokens."""
    call, step = thinking(close="aab", tokens=1)
    cases = {"<t>x": "a", "<t>xa": "a", "<t>xaa": "b", "<t>xaaa": "b", "<t>xac": "a", "<t>xaac": "a", "<t>aa": "a"}
    assert {text: forced(call, step, text) for text in cases} == cases


def test_a_block_of_the_prompt_is_open() -> None:
    """Its tokens of the prompt do not count; a block that the prompt closes is closed."""
    call, step = thinking("Why? <t>because")
    assert [forced(call, step, text) for text in ("", "ab", "abc", "abc<")] == ["", "", "<", "/"]
    call, step = thinking("Why? <t>because</t>")
    assert forced(call, step, "abcdef") == ""
    call, step = thinking("Why? <t", tokens=0)  # the marker begins in the prompt
    assert [forced(call, step, text) for text in ("", ">", "><")] == ["", "<", "/"]


def plain(text: str, prompt: str, budget: int, closing: str, marks: tuple[str, str]) -> str:
    """The forced character after a text, by reading it from the beginning."""
    whole, at, begun = prompt + text, 0, None
    while True:
        found = whole.find(marks[begun is not None], at)
        if found < 0:
            break
        at = found + len(marks[begun is not None])
        begun = at if begun is None else None
    if begun is None:
        return ""
    block = whole[max(begun, len(prompt)) :]
    if len(block) < budget:
        return ""
    spent = block[budget:]
    return closing[max(count for count in range(len(closing)) if spent.endswith(closing[:count]))]


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(["<", "b>", "</b>", "<b>", "a", "!", "/", "a!"]), max_size=10).map("".join),
    prompt=st.sampled_from(["p", "p<b>", "p<b>a", "p<b>a</b>", "p<"]),
    budget=st.integers(0, 4),
    closing_text=st.sampled_from(["", "a!", "aa"]),
)
def test_equals_reading_the_text_anew(text: str, prompt: str, budget: int, closing_text: str) -> None:
    """For any text of markers and letters, in tokens of one byte."""
    call, step = thinking(prompt, open="<b>", close="</b>", tokens=budget, closing_text=closing_text)
    assert forced(call, step, text) == plain(text, prompt, budget, f"{closing_text}</b>", ("<b>", "</b>"))


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3},
    "assisted": {"assistant_model": foreign_model(3)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_block_is_closed_in_time(mode: str) -> None:
    """Four tokens of thought, then the closing text, over a tokenizer whose tokens hold several characters."""
    prompts = ["on the [other"] if mode in ("assisted", "lookup") else ["on the [other", "the ["]
    chain = "thinking_budget(open='[', close='] the', tokens=4, closing_text=' on')"
    call = logitkit.chain(chain).bind(foreign_model(), foreign_tokenizer(), prompts)
    tokenizer = foreign_tokenizer()
    closing = tokenizer(" on] the")["input_ids"]
    for _ in range(2):
        torch.manual_seed(0)
        output = call.generate(max_new_tokens=16, **{"do_sample": False, **MODES[mode]})
        for row in call.ids(output)[:, call.prompts.width :].tolist():
            free = tokenizer.decode(row[:4])
            ended = {2, tokenizer.eos_token_id} & set(row[:4])
            assert ended or "] the" in free or row[4 : 4 + len(closing)] == closing


def test_a_closing_token_that_is_forbidden() -> None:
    """The error says where the step belongs; before the budget is spent nothing happens."""
    call, step = thinking("<t>")
    scores = torch.zeros(1, VOCABULARY)
    scores[0, tiny_tokenizer()("<")["input_ids"]] = -torch.inf
    assert step(call.prompts.ids, scores) is scores
    row = torch.cat([call.prompts.ids, torch.tensor([tiny_tokenizer()("abc")["input_ids"]])], dim=1)
    with pytest.raises(ScoresError, match="put thinking_budget first in the chain"):
        step(row, scores)
    ended = torch.cat([row, torch.tensor([[END]])], dim=1)
    assert step(ended, scores) is scores


def test_rules_of_thinking_budget() -> None:
    """Two different markers, which the closing tokens must spell."""
    for parameters in ({"open": ""}, {"close": ""}, {"open": "a", "close": "a"}):
        with pytest.raises(ParameterError, match="must be text, different from the other marker"):
            thinking(**parameters)
    with pytest.raises(ParameterError, match=r"tokens must be a whole number >= 0, got -1"):
        thinking(tokens=-1)


def test_special_tokens_are_markers() -> None:
    """The text of a special token opens and closes a block."""
    call, step = thinking("<s>", open="<s>", close="<pad>", tokens=2)
    row = torch.cat([call.prompts.ids, torch.tensor([[1, 2]])], dim=1)
    assert torch.isfinite(step(row, torch.zeros(1, VOCABULARY))[0]).nonzero()[:, 0].tolist() == [258]
    assert step(row[:, :-1], torch.zeros(1, VOCABULARY)).isfinite().all()


@pytest.mark.parametrize(("written", "nats"), [(0, -1.5), (2, -0.5), (3, 0.0), (5, 1.0)])
def test_length_target_by_hand(written: int, nats: float) -> None:
    """With 3 tokens and half a nat a token the log-odds of the two end tokens together move by (t - 3) / 2."""
    call = logitkit.chain("length_target(tokens=3, strength=0.5)").bind(tiny_model(), tiny_tokenizer(), "one")
    call.settings.tell({"eos_token_id": [5, END]})
    rows = torch.cat([call.prompts.ids, torch.full((1, written), 9)], dim=1)
    scores = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    before, after = (each.double().softmax(-1)[0] for each in (scores, call.composite(rows, scores)))

    def odds(law: torch.Tensor) -> float:
        ending = law[[5, END]].sum()
        return float((ending / (1 - ending)).log())

    assert odds(after) - odds(before) == pytest.approx(nats, abs=1e-6)
    others = [token for token in range(VOCABULARY) if token not in (5, END)]
    for group in ([5, END], others):
        torch.testing.assert_close(after[group] / after[group].sum(), before[group] / before[group].sum())


def test_length_target_raises_no_impossible_end() -> None:
    """An end token at -inf stays there, and shifts of any strength keep the scores finite in half precision."""
    step = LengthTarget(tokens=1, strength=1e30, ends=[END], settings=thinking()[0].settings)
    rows = torch.full((1, 40), 9)
    for dtype in (torch.float16, torch.float32):
        scores = torch.zeros(1, VOCABULARY, dtype=dtype)
        assert step(rows, scores).argmax() == END and torch.isfinite(step(rows, scores)).all()
        scores[0, END] = -torch.inf
        assert step(rows, scores)[0, END] == -torch.inf and torch.isfinite(step(rows, scores)[0, :END]).all()


def test_length_target_moves_lengths() -> None:
    """Sampled texts of 16 seeds are longer with a larger target."""

    def lengths(target: int) -> float:
        torch.manual_seed(0)
        call = logitkit.chain(f"length_target(tokens={target}, strength=2.0)").bind(
            tiny_model(), tiny_tokenizer(), "one"
        )
        rows = call.generate(max_new_tokens=24, do_sample=True, num_return_sequences=16)[:, call.prompts.width :]
        return float(((rows == END).cumsum(-1) == 0).sum(-1).float().mean())

    assert lengths(4) < lengths(10) < lengths(16)


def test_length_target_needs_an_end_token() -> None:
    """A model and a tokenizer without one are refused."""
    model, tokenizer = copy.deepcopy((foreign_model(), foreign_tokenizer()))
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    with pytest.raises(ModelError, match="length_target: model must have an end token"):
        logitkit.chain("length_target(tokens=3)").bind(model, tokenizer, "one")


def test_pickles() -> None:
    """A copy forces the same."""
    call, step = thinking("<t>")
    row = torch.cat([call.prompts.ids, torch.tensor([[1, 2, 3]])], dim=1)
    copy = pickle.loads(pickle.dumps(step))
    assert torch.equal(copy(row, torch.zeros(1, VOCABULARY)), step(row, torch.zeros(1, VOCABULARY)))
