"""Chains bound to calls: forms of prompts, order of processors, settings and modes."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

import logitkit
from fakes import encoder_decoder_model
from logitkit.errors import ModeError
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

TEXTS = ["one prompt", "a second, longer prompt", "three"]
CHAT = [{"role": "user", "content": "hello"}]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}you:{% endif %}"
)


@pytest.fixture
def chatty() -> Any:
    """A tokenizer with a chat template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def generate(chain: str, prompts: Any = TEXTS, **settings: Any) -> Any:
    """Generate 8 tokens with the tiny model."""
    torch.manual_seed(0)
    given = {"max_new_tokens": 8, "do_sample": False} | settings
    return logitkit.generate(tiny_model(), tiny_tokenizer(), prompts, chain=chain, **given)


def test_the_three_lines_of_the_readme() -> None:
    """bind, model.generate and texts give the same texts as logitkit.generate."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    call = logitkit.chain("cfg(2.0)").bind(model, tokenizer, TEXTS)
    out = model.generate(**call.inputs, logits_processor=call.processors, max_new_tokens=8, do_sample=False)
    assert call.texts(out) == generate("cfg(2.0)").texts
    assert len(call.processors) == 1


def test_an_empty_chain_is_plain_decoding() -> None:
    """An empty chain, and neutral processors, give the ids of model.generate."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    encoded = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="left")
    want = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    for chain in ("", "uscd(rho=0.0)", "cfg(1.0)"):
        assert torch.equal(generate(chain).ids, want)


def test_every_form_of_prompt_means_the_same(chatty: Any) -> None:
    """Texts and encoded inputs padded on either side give the same inputs; so do a chat and a list of chats."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    bind = logitkit.chain("cfg(2.0)").bind
    want = bind(model, tokenizer, TEXTS).inputs
    for side in ("left", "right"):
        encoded = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
        got = bind(model, tokenizer, encoded).inputs
        assert torch.equal(got["input_ids"], want["input_ids"]) and torch.equal(
            got["attention_mask"], want["attention_mask"]
        )
    assert bind(model, tokenizer, "one").prompts.texts == ("one",)
    for prompts in (CHAT, [CHAT], CHAT[0]):
        assert bind(model, chatty, prompts).prompts.texts == ("user:hello;you:",)


def test_a_batch_is_the_stack_of_its_prompts() -> None:
    """Each text of a batch equals the text of its prompt alone, whatever the padding."""
    alone = [generate("cfg(2.0, 'no')", text).texts[0] for text in TEXTS]
    assert generate("cfg(2.0, 'no')").texts == alone


def test_a_missing_pad_token_is_the_end_token() -> None:
    """A tokenizer without a padding token pads with its end token, which changes no text."""
    bare = copy.deepcopy(tiny_tokenizer())
    bare.pad_token = None
    model = copy.deepcopy(tiny_model())
    model.generation_config.pad_token_id = None
    call = logitkit.chain("cfg(2.0)").bind(model, bare, TEXTS)
    assert call.generate_kwargs == {"pad_token_id": bare.eos_token_id}
    assert call.texts(call.generate(max_new_tokens=8, do_sample=False)) == generate("cfg(2.0)").texts


def test_the_same_token_goes_to_all_streams_of_a_row() -> None:
    """Under sampling, the second stream reads the sampled tokens of the row."""
    seen: list[torch.Tensor] = []
    other = copy.deepcopy(tiny_model(1))
    other.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    prompts = [*TEXTS, "four is the last one"]
    call = logitkit.chain("contrastive('other')").bind(tiny_model(), tiny_tokenizer(), prompts, other=other)
    torch.manual_seed(3)
    out = call.generate(max_new_tokens=8, do_sample=True)
    width = call.prompts.width
    assert torch.equal(torch.cat(seen, dim=1)[:, -7:], out[:, width : width + 7])  # the last token is not read


def test_warpers_in_a_chain_own_the_order() -> None:
    """A chain with warpers switches off those of the generation config, so none runs twice."""
    call = logitkit.chain("cfg(2.0) | temperature(0.5) | top_k(3)").bind(tiny_model(), tiny_tokenizer(), TEXTS)
    assert call.generate_kwargs["top_k"] == 0 and call.generate_kwargs["temperature"] == 1.0
    got = generate("temperature(0.5) | top_k(3)", do_sample=True)
    torch.manual_seed(0)
    inputs = logitkit.chain().bind(tiny_model(), tiny_tokenizer(), TEXTS).inputs
    want = tiny_model().generate(**inputs, do_sample=True, temperature=0.5, top_k=3, max_new_tokens=8)
    assert torch.equal(got.ids, want)


def test_a_penalty_by_name_is_transformers_own() -> None:
    """Penalties in a chain give the ids of the same settings of generate, with left padding too."""
    inputs = logitkit.chain().bind(tiny_model(), tiny_tokenizer(), TEXTS).inputs
    want = tiny_model().generate(
        **inputs, do_sample=False, max_new_tokens=8, repetition_penalty=1.7, no_repeat_ngram_size=2, min_new_tokens=4
    )
    assert torch.equal(generate("repetition_penalty(1.7) | no_repeat_ngram(2) | min_new_tokens(4)").ids, want)


def test_a_setting_given_twice_is_refused() -> None:
    """A setting in the chain and in the arguments of generate is refused."""
    with pytest.raises(ModeError, match="temperature must be given once"):
        generate("temperature(0.5)", temperature=0.7)


def test_other_processors_run_after_the_chain() -> None:
    """Processors passed as logits_processor run after the chain."""

    class Only(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([65]), 0.0)

    got = generate("cfg(2.0)", logits_processor=LogitsProcessorList([Only()]))
    assert set(got.ids[:, -8:].flatten().tolist()) == {65}


@pytest.mark.parametrize("chain", ["cfg(2.0, 'no')", "cad(context='o')", "uscd(gate=1.0, lame='lame')"])
def test_encoder_decoder_models(chain: str) -> None:
    """On a T5, contrastive methods with beams give each prompt of a batch the text of the prompt alone."""
    model, tokenizer = encoder_decoder_model(), tiny_tokenizer()
    texts = ["one prompt", "a second, longer prompt"]
    kwargs: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "num_beams": 2}
    alone = [logitkit.generate(model, tokenizer, text, chain=chain, **kwargs).texts[0] for text in texts]
    assert logitkit.generate(model, tokenizer, texts, chain=chain, **kwargs).texts == alone


def test_several_sequences_a_prompt() -> None:
    """With num_return_sequences, each row has a text."""
    assert len(generate("cfg(2.0)", do_sample=True, num_return_sequences=2).texts) == 6


def test_output_objects_are_read_too() -> None:
    """An output object of return_dict_in_generate gives the same texts as ids."""
    assert generate("cfg(2.0)", return_dict_in_generate=True).texts == generate("cfg(2.0)").texts


def test_the_trace_says_what_happened() -> None:
    """A trace records gates, divergences, likeliest tokens and forwards; steps only if requested."""
    assert generate("uscd(gate=1.0, lame='x')").trace.steps == []
    trace = generate("uscd(gate=1.0, lame='x')", trace=True, streams="lazy").trace
    assert trace.calls == 8 and len(trace.steps) == 24
    assert trace.forwards == {"lame prompt": 8} and trace.fired == {"uscd": 1.0}
    step = trace.steps[0]
    assert step.processor == "uscd" and step.position == 0 and step.notes["fired"] is True
    assert 0 < step.js_bits <= 1 and 0 < step.notes["gate"] <= 1
    assert step.before[0][1] >= step.before[1][1] and len(step.after) == 5


def test_a_gate_that_stays_shut_costs_no_second_forward() -> None:
    """A gate that never opens costs no forward, and the tokens are those of plain decoding."""
    got = generate("uscd(gate=0.001, lame='x')", streams="lazy")
    assert got.trace.forwards == {"lame prompt": 0}
    assert torch.equal(got.ids, generate("").ids)


def test_a_prompt_without_examples_is_left_as_it_is() -> None:
    """USCD changes nothing for a prompt without examples, and notes the fact in the trace."""
    got = generate("uscd(gate=1.0)")
    assert torch.equal(got.ids, generate("").ids)
    assert got.trace.forwards == {"lame prompt": 0}
    assert "uscd: prompt 0 has no examples to remove; its rows are not contrasted" in got.trace.notices


def test_only_rows_with_a_lame_prompt_are_contrasted() -> None:
    """In a batch, USCD contrasts the row of a prompt with examples and leaves the other row unchanged."""
    example = 'def f(x):\n    """Add one.\n    >>> f(1)\n    2\n    """\n'
    both = generate("uscd(gate=1.0)", [example, "plain"])
    assert both.texts == [generate("uscd(gate=1.0)", example).texts[0], generate("", "plain").texts[0]]
    assert both.texts[0] != generate("", example).texts[0]


def test_chat_prompts_are_stripped_message_by_message(chatty: Any) -> None:
    """Examples are removed from each message, and the result is formatted by the chat template."""
    chat = [{"role": "user", "content": "Add one.\n\nExample:\n>>> f(1)\n2\n"}]
    call = logitkit.chain("uscd(gate=1.0)").bind(tiny_model(), chatty, chat)
    (own,) = call.composite.parts[0][1].lame.own
    text = chatty.decode(own)
    assert text.startswith("user:Add one.") and ">>>" not in text and text.endswith("you:")


def test_streams_of_other_models() -> None:
    """contrastive and dexperts in a batch with beams give each prompt the text of the prompt alone."""
    resources = {"a": tiny_model(1), "b": tiny_model(2)}
    for chain in ("contrastive('a')", "dexperts('a', 'b')"):
        asked = {name: value for name, value in resources.items() if f"'{name}'" in chain}
        alone = [generate(chain, text, resources=asked, num_beams=3).texts[0] for text in TEXTS]
        assert generate(chain, resources=asked, num_beams=3).texts == alone


@pytest.mark.parametrize("chain", ["", "cfg(2.0)", "uscd(gate=1.0, lame='x') | top_p(0.9)"])
def test_a_generation_survives_pickling(chain: str) -> None:
    """Texts, ids and the trace's counters and steps are the same in a copy; the readers' models are left out."""
    done = generate(chain, trace=True)
    copied = pickle.loads(pickle.dumps(done))
    assert copied.texts == done.texts and torch.equal(copied.ids, done.ids)
    assert copied.trace.forwards == done.trace.forwards and copied.trace.fired == done.trace.fired
    assert [vars(step) for step in copied.trace.steps] == [vars(step) for step in done.trace.steps]


def test_a_kept_generation_keeps_no_model() -> None:
    """A second model is freed when its last user lets go, although the generation that it helped is kept."""
    model = copy.deepcopy(tiny_model(1))
    freed = weakref.ref(model)
    kept = logitkit.generate(
        tiny_model(), tiny_tokenizer(), TEXTS, chain="contrastive('a')", resources={"a": model}, max_new_tokens=3
    )
    del model
    gc.collect()
    assert freed() is None and kept.trace.forwards["a"] > 0


def test_a_bound_chain_without_second_streams_says_so() -> None:
    """The report is available before anything is generated."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    states = [logitkit.chain(chain).bind(model, tokenizer, "a prompt").trace.fusion.state for chain in ("", "cfg(2.0)")]
    assert states == ["none", "lazy"]


@pytest.mark.parametrize("text", ["cfg(scale=2.0)", "core(models=['other'])"])
def test_a_batch_without_rows_stays_without_rows(text: str) -> None:
    """Processors with a second prompt and with a foreign model map zero rows to zero rows, without a forward."""
    others = {"other": foreign_model()} if "other" in text else {}
    tokenizers = {"other": foreign_tokenizer()} if others else {}
    call = logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), "a prompt", tokenizers=tokenizers, **others)
    scores = torch.zeros(0, tiny_model().config.vocab_size)
    assert call.processors(call.inputs["input_ids"][:0], scores).shape == scores.shape
