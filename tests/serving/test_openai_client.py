"""The server as the client of OpenAI sees it: texts, chats, streams, settings and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

import logitkit
from logitkit.registry.laws import tiny_model
from servers import chatting_tokenizer, client_of, running, tiny_engine

PROMPT = "The sea is"


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """A client of a server over the tiny model."""
    with running(tiny_engine()) as address, client_of(address) as client:
        yield client


def greedy(prompt: Any, chain: str = "", tokens: int = 12) -> str:
    """Return the text of `logitkit.generate`."""
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens}
    return logitkit.generate(tiny_model(), chatting_tokenizer(), prompt, chain=chain, **settings).texts[0]


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **settings: Any) -> Any:
    """Return a completion of the tiny model."""
    return client.completions.create(**{"model": "tiny", "prompt": prompt, "max_tokens": 12, **settings})


def chat(client: openai.OpenAI, **settings: Any) -> Any:
    """Return an answer in a chat."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    return client.chat.completions.create(**{"model": "tiny", "messages": messages, "max_tokens": 12, **settings})


def joined(stream: Any) -> tuple[str, list[Any]]:
    """Return the whole text of a stream, and the parts in which it came."""
    parts = list(stream)
    choices = [choice for part in parts for choice in part.choices]
    return "".join((one.delta.content if hasattr(one, "delta") else one.text) or "" for one in choices), parts


@pytest.mark.parametrize("chain", ["", "cfg(1.5)", "no_repeat_ngram(2) | top_k(5)"])
def test_a_completion_is_that_of_generate(client: openai.OpenAI, chain: str) -> None:
    """The greedy text under a chain, whole and as a stream, with the tokens counted."""
    whole = complete(client, temperature=0, extra_body={"chain": chain})
    assert whole.choices[0].text == greedy(PROMPT, chain) and whole.choices[0].finish_reason == "length"
    usage = whole.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (len(PROMPT), 12, len(PROMPT) + 12)
    text, parts = joined(complete(client, temperature=0, stream=True, extra_body={"chain": chain}))
    assert text == greedy(PROMPT, chain) and parts[-1].choices[0].finish_reason == "length" and len(parts) > 3


def test_a_chat_is_that_of_generate(client: openai.OpenAI) -> None:
    """The messages go through the template of the tokenizer; a stream begins with the role."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    expected = greedy(messages, "cfg(1.5)")
    whole = chat(client, temperature=0, extra_body={"chain": "cfg(1.5)"})
    assert whole.choices[0].message.content == expected and whole.choices[0].message.role == "assistant"
    text, parts = joined(chat(client, temperature=0, stream=True, extra_body={"chain": "cfg(1.5)"}))
    assert text == expected and parts[0].choices[0].delta.role == "assistant"
    by_parts = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]
    assert chat(client, temperature=0, messages=by_parts).choices[0].message.content == greedy(
        [{"role": "user", "content": "Hello"}]
    )
    moody = chat(client, temperature=0, extra_body={"chat_template_kwargs": {"mood": "angry"}})
    assert moody.usage.prompt_tokens == whole.usage.prompt_tokens - len("assistant") + len("angry")


def test_prompts_as_lists_and_as_tokens(client: openai.OpenAI) -> None:
    """Each prompt has its own text, in order; tokens are read as they are."""
    prompts = ["one", "a longer prompt", "two"]
    many = complete(client, prompts, temperature=0)
    assert [choice.text for choice in many.choices] == [greedy(prompt) for prompt in prompts]
    assert [choice.index for choice in many.choices] == [0, 1, 2]
    ids = chatting_tokenizer()("one")["input_ids"]
    assert complete(client, ids, temperature=0).choices[0].text == greedy("one")
    assert complete(client, [ids, ids[:1]], temperature=0).choices[0].text == greedy("one")


def test_seeds_and_several_texts(client: openai.OpenAI) -> None:
    """One seed gives one text; the texts of one prompt differ, and the first is that of n=1."""
    texts = [choice.text for choice in complete(client, seed=5, n=3).choices]
    assert len(set(texts)) == 3 and texts[0] == complete(client, seed=5).choices[0].text
    assert texts == [choice.text for choice in complete(client, seed=5, n=3).choices]
    assert complete(client, seed=6).choices[0].text != texts[0]
    assert complete(client).choices[0].text != complete(client).choices[0].text
    assert complete(client, seed=5, temperature=1e-9).choices[0].text == greedy(PROMPT)
    assert complete(client, seed=5, top_p=1e-9).choices[0].text == greedy(PROMPT)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_never_sent(client: openai.OpenAI, stream: bool) -> None:
    """The text ends before the first stop string; the beginning of one that does not come is kept."""
    text = greedy(PROMPT, tokens=24)
    at = next(place for place in range(6, 20) if text.find(text[place : place + 2]) == place)
    stop = text[at : at + 2]
    for stops in (stop, [stop, "never"]):
        answer = complete(client, temperature=0, max_tokens=24, stop=stops, stream=stream)
        assert (joined(answer)[0] if stream else answer.choices[0].text) == text[:at]
    begun = [text[at] + "\x00"]  # its first character comes, its second does not
    answer = complete(client, temperature=0, max_tokens=24, stop=begun, stream=stream)
    assert (joined(answer)[0] if stream else answer.choices[0].text) == text


def test_log_probabilities(client: openai.OpenAI) -> None:
    """Both shapes: those of the chain, greedy tokens are the first of the likeliest, and a stream has the same."""
    whole = complete(client, temperature=0, logprobs=2)
    shown = whole.choices[0].logprobs
    assert len(shown.tokens) == 12 and all(len(top) == 2 for top in shown.top_logprobs)
    for token, logp, top in zip(shown.tokens, shown.token_logprobs, shown.top_logprobs, strict=True):
        assert top[token] == logp == max(top.values())
    parts = [part.choices[0].logprobs for part in complete(client, temperature=0, logprobs=2, stream=True)]
    assert [lp for part in parts if part for lp in part.token_logprobs] == shown.token_logprobs
    assert [place for part in parts if part for place in part.text_offset] == shown.text_offset
    talk = chat(client, seed=1, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(talk) == 12 and all(len(one.top_logprobs) == 3 for one in talk)
    spelled = bytes(byte for one in talk for byte in one.bytes).decode(errors="replace")
    assert spelled == chat(client, seed=1).choices[0].message.content
    assert all(len(one.top_logprobs) == 0 for one in chat(client, seed=1, logprobs=True).choices[0].logprobs.content)


def test_usage_of_a_stream(client: openai.OpenAI) -> None:
    """Only where it is asked for, in a last part without texts."""
    *parts, last = list(complete(client, stream=True, n=2, stream_options={"include_usage": True}))
    assert all(part.usage is None for part in parts) and not last.choices
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(PROMPT), 24)
    assert all(part.usage is None for part in complete(client, stream=True))


def test_an_end_token_ends_a_text(client: openai.OpenAI) -> None:
    """The reason is stop, and the end token is counted but no part of the text."""
    end = chatting_tokenizer().eos_token_id
    others = [token for token in range(272) if token != end]
    done = complete(client, extra_body={"chain": f"suppress_tokens({others})"}, logprobs=0).choices[0]
    assert (done.text, done.finish_reason, done.logprobs.tokens) == ("", "stop", [])


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ({"extra_body": {"chain": "cgf(1.5)"}}, 400, "no processor named 'cgf'; did you mean 'cfg'?"),
        ({"extra_body": {"chain": "cfg(-1.0)"}}, 400, "cfg: scale must be a finite number >= 0, got -1.0"),
        ({"extra_body": {"chain": "cfg(1.5, negative=['a', 'b'])"}}, 400, "cfg: negative must be"),
        ({"extra_body": {"chain": 5}}, 400, "completions: chain must be"),
        ({"extra_body": {"chain": "contrastive(amateur='gpt2')"}}, 400, "that this server was started with (none)"),
        ({"extra_body": {"chain": "temperature(0.5)"}, "temperature": 0.7}, 400, "temperature must be left out beside"),
        ({"extra_body": {"chain": "suppress_tokens(" + str(list(range(272))) + ")"}}, 400, "suppress_tokens"),
        ({"extra_body": {"temprature": 0.5}}, 400, "no parameter of completions named 'temprature'; did you mean"),
        ({"frequency_penalty": 0.5}, 400, "write it in the chain: frequency_penalty(...)"),
        ({"model": "other"}, 404, "no model named 'other'"),
        ({"prompt": "x" * 600}, 400, "since the model reads 512 tokens and the prompt has 600"),
        ({"max_tokens": 600}, 400, "max_tokens must be at most 502"),
        ({"prompt": ""}, 400, "prompt 0 has no tokens"),
        ({"prompt": []}, 400, "at least one token id in [0, 272)"),
        ({"prompt": [5, 272]}, 400, "at least one token id in [0, 272), or a list of either, got 5"),
        ({"prompt": ["a", 5]}, 400, "or a list of either, got 5"),
        ({"prompt": [[5], []]}, 400, "or a list of either, got []"),
        ({"extra_body": {"chain": "x" * 30_000}}, 400, "chain must be at most 20000 characters"),
        ({"stop": ["y" * 9000] * 17}, 400, "at most 16 strings"),
        ({"temperature": -1}, 400, "temperature must be a finite number >= 0"),
        ({"stop": [""]}, 400, "none empty"),
        ({"n": 0}, 400, "n must be a whole number >= 1"),
        ({"stream_options": {"include_usage": True}}, 400, "left out without stream=true"),
    ],
)
def test_a_wrong_request_is_refused(client: openai.OpenAI, settings: Any, status: int, says: str) -> None:
    """In OpenAI's shape, with the words of the processor, before or while the text is generated."""
    with pytest.raises(openai.APIStatusError) as caught:
        complete(client, **settings)
    assert caught.value.status_code == status and says in caught.value.message, caught.value.message
    assert isinstance(caught.value.body, dict) and caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize("field", ["prompt", "chain", "stop", "metadata"])
def test_deep_json_is_refused(client: openai.OpenAI, field: str) -> None:
    """Lists within lists, by their depth, whatever reads the field; 60 are read."""
    for depth, status in ((60, 200 if field == "metadata" else 400), (70, 400), (900, 400)):
        content = f'{{"max_tokens": 1, "prompt": "a", "{field}": {"[" * depth}{"]" * depth}}}'
        url, kind = f"{client.base_url}completions", {"Content-Type": "application/json"}
        reply = httpx.post(url, content=content, headers=kind)
        assert reply.status_code == status, reply.text
        assert ("JSON nested at most 64 deep" in reply.text) == (depth > 64)


@pytest.mark.parametrize(
    "content", [5, None, ["a"], [{"type": "text", "text": 5}], [{"type": "text", "text": {"a": 1}}]]
)
def test_a_message_is_text(client: openai.OpenAI, content: Any) -> None:
    """Numbers and objects are no text."""
    with pytest.raises(openai.BadRequestError, match="messages whose content is text"):
        chat(client, messages=[{"role": "user", "content": content}])


def test_a_long_value_is_quoted_in_part(client: openai.OpenAI) -> None:
    """The beginning, and what to do, which stands at the end."""
    with pytest.raises(openai.BadRequestError, match="write it in the chain") as caught:
        complete(client, extra_body={"top_k": "x" * 10**5})
    assert len(caught.value.message) < 2100
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, extra_body={"x" * 10**5: 1})
    assert len(caught.value.response.text) < 4500


def test_what_asks_for_nothing_passes(client: openai.OpenAI) -> None:
    """Fields that clients send with their defaults."""
    neutral = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "best_of": 1,
        "echo": False,
        "suffix": None,
        "user": "me",
    }
    assert complete(client, temperature=0, **neutral).choices[0].text == greedy(PROMPT)


def test_models(client: openai.OpenAI) -> None:
    """The list has the one model; another name is unknown."""
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
