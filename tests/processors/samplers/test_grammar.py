"""Outputs follow the grammar in every mode, and the allowed tokens are exactly those with which the text can go on."""

from __future__ import annotations

import json
import pickle
import re
import sys
from typing import Any

import pytest
import torch

import logitkit
from foreign import foreign_model as sentencepiece_model
from foreign import sentencepiece_tokenizer
from logitkit.errors import MissingPackageError, ModelError, ParameterError, ScoresError
from logitkit.processors.engine import Constraint
from logitkit.processors.tokens import vocabulary_of
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {"on": {"enum": ["the", "other", "é"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["on", "n"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}


def bound(prompts: Any = "a prompt", model: Any = None, tokenizer: Any = None, **grammar: Any) -> Any:
    """The call and its step."""
    model, tokenizer = model or foreign_model(), tokenizer or foreign_tokenizer()
    call = logitkit.chain([{"name": "grammar", "params": grammar}]).bind(model, tokenizer, prompts)
    return call, call.composite.parts[0][1]


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 4},
    "beams": {"num_beams": 3},
    "assisted": {"assistant_model": foreign_model(3)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_outputs_follow_a_schema(mode: str) -> None:
    """Greedy, sampled, with beams and with drafts, in batches and in a used call."""
    prompts = ['{"on": "the", {"on"'] if mode in ("assisted", "lookup") else ["on the", "the other one"]
    call, step = bound(prompts, json_schema=SCHEMA)
    assert isinstance(step, Constraint)
    for _ in range(2):
        torch.manual_seed(0)
        for text in call.texts(call.generate(max_new_tokens=40, **{"do_sample": False, **MODES[mode]})):
            data = json.loads(text)
            assert data["on"] in ("the", "other", "é") and 0 <= data["n"] <= 99 and len(data) == 2


@pytest.mark.parametrize("make", ["byte-level", "sentencepiece"])
def test_allowed_tokens_are_exact(make: str) -> None:
    """Every token after which some text of the grammar remains, in whatever spelling, and no other."""
    pair = (foreign_model(), foreign_tokenizer())
    if make == "sentencepiece":
        pair = sentencepiece_model(), sentencepiece_tokenizer()
    texts = [b"the other", b"there", "thé".encode(), b" on"]
    call, step = bound("on", *pair, regex="the other|there|thé| on")
    vocabulary = vocabulary_of(*pair)
    end = pair[1].eos_token_id
    reached = [b""]
    while reached:
        data = reached.pop()
        tokens = [vocabulary.ids_of[bytes([byte])][0] for byte in data]
        rows = torch.cat([call.prompts.ids, torch.tensor([tokens], dtype=torch.long)], dim=1)
        follow = set(step.allowed(rows)[0].nonzero()[:, 0].tolist())
        want = {
            number
            for number, text in enumerate(vocabulary.token_bytes)
            if text and any(whole.startswith(data + text) for whole in texts)
        }
        assert follow == want | ({end} if data in texts else set()), data
        following = {whole[len(data) :][:1] for whole in texts if whole.startswith(data)}
        reached += [data + byte for byte in following if byte]


def test_a_lark_grammar() -> None:
    """A recursive grammar that no regular expression can state: balanced brackets."""
    lark = 'start: pair\npair: "(" pair ")" | "ab"'
    call, _ = bound(["on", "the"], lark=lark)
    for seed in range(3):
        torch.manual_seed(seed)
        for text in call.texts(call.generate(max_new_tokens=60, do_sample=True)):
            assert re.fullmatch(r"\(*(a|ab\)*)?", text) and text.count(")") <= text.count("(")
            assert len(text) == 60 or text.count(")") == text.count("(")


def test_a_schema_as_text_gives_the_same() -> None:
    """The text form of the schema, as in a chain file."""
    call, step = bound(json_schema=SCHEMA)
    other = bound(json_schema=json.dumps(SCHEMA))[1]
    assert torch.equal(step.allowed(call.prompts.ids), other.allowed(call.prompts.ids))


def test_end_tokens_are_those_of_generate() -> None:
    """An end token is allowed where the text is complete, and only there; two of them if generate is told two."""
    call, step = bound(regex="a+", model=tiny_model(), tokenizer=tiny_tokenizer())
    letter = tiny_tokenizer()("a")["input_ids"]
    row = torch.cat([call.prompts.ids, torch.tensor([letter])], dim=1)
    assert step.allowed(call.prompts.ids)[0].nonzero()[:, 0].tolist() == letter
    assert step.allowed(row)[0].nonzero()[:, 0].tolist() == [*letter, 257]
    call.settings.tell({"eos_token_id": [3, 5]})
    assert step.allowed(row)[0].nonzero()[:, 0].tolist() == [3, 5, *letter]
    assert step.allowed(torch.cat([row, torch.tensor([[5]])], dim=1)).all()  # the row has ended


def test_a_grammar_names_special_tokens() -> None:
    """A Lark grammar may require a special token, the end token too; a regular expression never permits one."""
    call, step = bound("on", lark='start: "on" <begin> "the" <end>')
    begin, end = foreign_tokenizer().convert_tokens_to_ids(["<begin>", "<end>"])
    text = torch.tensor([[*foreign_tokenizer()("on")["input_ids"], begin, *foreign_tokenizer()("the")["input_ids"]]])
    rows = torch.cat([call.prompts.ids, text], dim=1)
    assert step.allowed(rows[:, :-2])[0].nonzero()[:, 0].tolist() == [begin]
    assert step.allowed(rows)[0].nonzero()[:, 0].tolist() == [end]
    assert call.texts(call.generate(max_new_tokens=12, do_sample=False)) == ["onthe"]
    free = bound("on", regex="(.|\n)*")[1].allowed(call.prompts.ids)[0]
    vocabulary = vocabulary_of(foreign_model(), foreign_tokenizer())
    assert not any(free[token] for token in range(300) if not vocabulary.token_bytes[token] and token != end)


def test_the_empty_text() -> None:
    """A grammar of the empty text alone ends at once."""
    call, _ = bound(["on", "the"], regex="")
    assert call.texts(call.generate(max_new_tokens=4, do_sample=False)) == ["", ""]


def test_rows_that_left_the_grammar() -> None:
    """Such a row is left alone; a constraint that is asked allows nothing."""
    call, step = bound(regex="a+", model=tiny_model(), tokenizer=tiny_tokenizer())
    row, scores = torch.cat([call.prompts.ids, torch.tensor([[0, 1, 271]])], dim=1), torch.zeros(1, 272)
    assert step(row, scores) is scores and not step.allowed(row).any()


def test_a_dead_end_is_named() -> None:
    """A vocabulary without the token that the grammar requires, or an earlier step that removed it."""
    call, step = bound(regex="a+")
    scores = torch.zeros(1, 300)
    scores[0, foreign_tokenizer()("an a")["input_ids"]] = -torch.inf
    scores[0, step.allowed(call.prompts.ids)[0]] = -torch.inf
    with pytest.raises(ScoresError, match="put grammar first in the chain"):
        step(call.prompts.ids, scores)


def test_mistakes_are_named() -> None:
    """Not one grammar, a grammar that cannot be read, and prompts that byte_boundary has cut."""
    for given in ({}, {"regex": "a", "lark": 'start: "a"'}):
        with pytest.raises(ParameterError, match=r"json_schema \| regex \| lark must be given, exactly one"):
            bound(**given)
    for name, value in (("regex", "(a"), ("lark", "begin"), ("json_schema", {"type": "thing"}), ("json_schema", "[")):
        with pytest.raises(ParameterError, match=f"grammar: {name} must be a "):
            bound(**{name: value})
    with pytest.raises(ModelError, match="leave byte_boundary out"):
        logitkit.chain("byte_boundary() | grammar(regex='a')").bind(foreign_model(), foreign_tokenizer(), "on th")


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'logitkit\[grammar\]'"):
        bound(regex="a")


def test_pickles() -> None:
    """A copy builds its matcher again."""
    call, step = bound(regex="ab|a")
    copy = pickle.loads(pickle.dumps(step))
    assert torch.equal(copy.allowed(call.prompts.ids), step.allowed(call.prompts.ids))
