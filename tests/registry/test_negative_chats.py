"""Negative prompts as chats, and arguments of chat templates in bind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ModelError, ParameterError
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if not loop.last or not continue_final_message %};"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}you{{ mood }}:{% endif %}"
)
KIND, RUDE = {"role": "system", "content": "be kind"}, {"role": "system", "content": "be rude"}
HELLO, BYE = {"role": "user", "content": "hello"}, {"role": "user", "content": "goodbye"}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "", "parameters": {}}}


@pytest.fixture
def chatty() -> Any:
    """A tokenizer with a chat template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def negatives(tokenizer: Any, prompts: Any, negative: Any, **options: Any) -> list[str]:
    """Return the negative prompts of a bound cfg as texts."""
    chain = Chain([{"name": "cfg", "params": {"scale": 2.0, "negative": negative}}])
    call = chain.bind(tiny_model(), tokenizer, prompts, **options)
    (reader,) = call.composite.streams
    return [tokenizer.decode(ids) for ids in reader.own]  # type: ignore[attr-defined]


def test_the_same_chat_with_another_system_prompt(chatty: Any) -> None:
    """System messages alone take the place of those of each chat; the other messages stay."""
    got = negatives(chatty, [[KIND, HELLO], [BYE]], [RUDE])
    assert got == ["system:be rude;user:hello;you:", "system:be rude;user:goodbye;you:"]


def test_whole_chats(chatty: Any) -> None:
    """One chat for all prompts, or one for each; prompts may be texts then."""
    assert negatives(chatty, [[HELLO], [BYE]], [RUDE, HELLO]) == ["system:be rude;user:hello;you:"] * 2
    assert negatives(chatty, ["a", "b"], [[HELLO], [RUDE, BYE]]) == [
        "user:hello;you:",
        "system:be rude;user:goodbye;you:",
    ]
    assert negatives(chatty, [[HELLO]], "a text") == ["a text"]


def test_arguments_of_the_template(chatty: Any) -> None:
    """Tools and other arguments reach the prompt and the negative prompt; a last assistant message is continued."""
    chain = Chain([{"name": "cfg", "params": {"negative": [RUDE]}}])
    template = {"tools": [TOOL], "mood": "!"}
    call = chain.bind(tiny_model(), chatty, [[HELLO]], template=template)
    assert call.prompts.texts == ("[look_up]user:hello;you!:",)
    assert negatives(chatty, [[HELLO]], [RUDE], template=template) == ["[look_up]system:be rude;user:hello;you!:"]
    begun = [HELLO, {"role": "assistant", "content": "I think"}]
    call = chain.bind(tiny_model(), chatty, [begun], template={"continue_final_message": True})
    assert call.prompts.texts == ("user:hello;assistant:I think",)
    got = negatives(chatty, [begun], [RUDE], template={"continue_final_message": True})
    assert got == ["system:be rude;user:hello;assistant:I think"]


def test_generate_equals_the_texts_of_the_template(chatty: Any) -> None:
    """A chat as negative prompt generates what the same text generates, fused and lazy; the chain round-trips."""
    chain = Chain([{"name": "cfg", "params": {"scale": 2.0, "negative": [RUDE, HELLO]}}])
    assert Chain(str(chain)) == chain and Chain(chain.as_data()).hash == chain.hash
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    text = Chain("cfg(2.0, negative='system:be rude;user:hello;you:')")
    want = logitkit.generate(tiny_model(), chatty, [HELLO], chain=text, **settings)
    for streams in ("fused", "lazy"):
        got = logitkit.generate(tiny_model(), chatty, [HELLO], chain=chain, streams=streams, **settings)
        assert torch.equal(got.ids, want.ids)


def test_mistakes_are_refused(chatty: Any) -> None:
    """System messages beside texts, another number of chats, no template, and arguments that return no text."""
    with pytest.raises(ParameterError, match="cfg: negative must be a whole chat where the prompts of the call are"):
        negatives(chatty, ["a text"], [RUDE])
    with pytest.raises(ParameterError, match=r"cfg: negative must be one chat, or 3 \(one a prompt\)"):
        negatives(chatty, ["a", "b", "c"], [[HELLO], [BYE]])
    with pytest.raises(ParameterError, match="cfg: negative must be one chat"):
        negatives(chatty, ["a"], [{"content": "no role"}])
    with pytest.raises(ModelError, match="need a tokenizer with a chat template"):
        negatives(tiny_tokenizer(), ["a"], [HELLO])
    with pytest.raises(ParameterError, match="bind: template must be without tokenize"):
        negatives(chatty, [[HELLO]], [RUDE], template={"tokenize": True})


ENCODED = {"input_ids": torch.tensor([[7, 8]])}


@pytest.mark.parametrize("prompts", ["a text", ["a", "b"], ENCODED])
@pytest.mark.parametrize("chain", ["", "cfg(2.0, negative='a text')", "cfg(2.0, negative=['a text'])", "mti()"])
def test_template_arguments_without_chats(chatty: Any, prompts: Any, chain: str) -> None:
    """Template arguments that no chat takes are refused where they are given, not ignored."""
    message = "bind: template must be None where the prompts are texts or encoded, got .*; pass the prompts as chat"
    if chain.endswith("['a text'])") and len(prompts) == 2:
        chain = "cfg(2.0, negative=['a text', 'b'])"
    with pytest.raises(ParameterError, match=message):
        logitkit.chain(chain).bind(tiny_model(), chatty, prompts, template={"mood": "!"})
    logitkit.chain(chain).bind(tiny_model(), chatty, prompts, template={})
    with pytest.raises(
        ParameterError, match="bind: template must be a dict of arguments of the chat template, or None"
    ):
        logitkit.chain(chain).bind(tiny_model(), chatty, prompts, template="mood")  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", ["a text", ENCODED])
def test_template_arguments_of_a_negative_chat(chatty: Any, prompts: Any) -> None:
    """Beside texts and encoded prompts, a negative chat takes the arguments."""
    got = negatives(chatty, prompts, [RUDE, HELLO], template={"mood": "!"})
    assert got == ["system:be rude;user:hello;you!:"]
    assert negatives(chatty, prompts, [[RUDE, HELLO]], template={"mood": "!"}) == got


def test_scores_of_chats(chatty: Any) -> None:
    """`score` takes template arguments; one chat serves all continuations, and equals the text of its template."""
    template = {"mood": "!", "tools": [TOOL]}
    text = chatty("[look_up]user:hello;you!:", add_special_tokens=False, return_tensors="pt")
    encoded = {name: torch.cat([value, value]) for name, value in text.items()}
    want = logitkit.score(tiny_model(), chatty, encoded, ["yes", "no"], "cfg(1.5)")
    for prompts in ([HELLO], [[HELLO], [HELLO]]):
        got = logitkit.score(tiny_model(), chatty, prompts, ["yes", "no"], "cfg(1.5)", template=template)
        assert [one.logp for one in got] == [pytest.approx(one.logp, abs=1e-4) for one in want]
    with pytest.raises(ParameterError, match="bind: template must be None"):
        logitkit.score(tiny_model(), chatty, "a text", "yes", template=template)
