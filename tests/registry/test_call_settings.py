"""What `generate` is told wins over what the model's configuration stated when the chain was bound."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, SuppressTokensLogitsProcessor, TopKLogitsWarper

import logitkit
from fakes import encoder_decoder_model
from foreign import foreign_model, foreign_tokenizer
from logitkit.errors import ModeError, ScoresError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.tokens.vocabulary import vocabulary_of
from logitkit.registry.generate_settings import refuse_settings
from logitkit.registry.laws import tiny_model, tiny_tokenizer

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12}


def first_token(model: Any) -> int:
    """Return the token that greedy decoding writes first, which serves as a told end token."""
    plain = logitkit.generate(model, tiny_tokenizer(), "a prompt", eos_token_id=None, **GREEDY)
    return int(plain.ids[0, -12])


@pytest.mark.parametrize("way", ["call", "config", "bare", "changed"])
def test_min_new_tokens_forbids_the_told_end_token(way: str) -> None:
    """`generate(eos_token_id=X)` gives as many tokens as asked, as transformers' own min_new_tokens does."""
    model, tokenizer = copy.copy(tiny_model()), tiny_tokenizer()
    model.generation_config = copy.deepcopy(tiny_model().generation_config)
    end = first_token(model)
    call = logitkit.chain("min_new_tokens(4)").bind(model, tokenizer, "a prompt")
    want = model.generate(**call.inputs, min_new_tokens=4, eos_token_id=end, **GREEDY)
    if way == "call":
        got = call.generate(eos_token_id=end, **GREEDY)
    elif way == "config":
        got = call.generate(generation_config=GenerationConfig(eos_token_id=end, **GREEDY))
    elif way == "bare":
        settings = call.settings_for(eos_token_id=end, **GREEDY)
        got = model.generate(**call.inputs, logits_processor=call.processors, **settings)
    else:
        model.generation_config.eos_token_id = end
        got = model.generate(**call.inputs, logits_processor=call.processors, **GREEDY)
    assert torch.equal(got, want)
    assert end not in got[0, call.prompts.width : call.prompts.width + 4].tolist()


def test_settings_hold_for_one_generate() -> None:
    """The next `generate` of the call reads the model's configuration again; None means no end token."""
    call = logitkit.chain("min_new_tokens(4)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    first = call.generate(**GREEDY)
    call.generate(eos_token_id=first_token(tiny_model()), **GREEDY)
    assert torch.equal(call.generate(**GREEDY), first)
    call.settings_for(eos_token_id=None)
    scores = torch.zeros(1, 272)
    assert torch.equal(call.composite(call.prompts.ids, scores), scores)


@pytest.mark.parametrize("with_start", [True, False])
def test_a_decoder_prompt_counts_as_prompt(with_start: bool) -> None:
    """min_new_tokens and texts begin after the decoder's prompt, with or without its start token."""
    model, tokenizer = encoder_decoder_model(), tiny_tokenizer()
    start = model.config.decoder_start_token_id
    decoder = torch.tensor([[start] * with_start + [97, 98, 99]])
    call = logitkit.chain("min_new_tokens(4)").bind(model, tokenizer, "a prompt")
    settings = {"decoder_input_ids": decoder, **GREEDY}
    free = model.generate(**call.inputs, eos_token_id=None, **settings)
    end = int(free[0, 4])
    got = call.generate(eos_token_id=end, **settings)
    assert torch.equal(got, model.generate(**call.inputs, min_new_tokens=4, eos_token_id=end, **settings))
    assert end not in got[0, 4:8].tolist()
    assert call.texts(got) == tokenizer.batch_decode(got[:, 4:], skip_special_tokens=True)


@pytest.mark.parametrize("chain", ["crossover('other', threshold=0.0, budget=2)", "crossover('other', budget=0.5)"])
def test_a_budget_begins_after_the_decoder_prompt(chain: str) -> None:
    """A decoder's prompt spends no budget: positions are counted from the first new token, in a used call too."""
    model, other = encoder_decoder_model(), encoder_decoder_model(1)
    start = model.config.decoder_start_token_id

    def bind() -> Any:
        return logitkit.chain(chain).bind(model, tiny_tokenizer(), "a prompt", other=other)

    used = bind()
    plain = used.generate(eos_token_id=None, **GREEDY)
    decoder = plain[:, :3].clone()
    assert int(decoder[0, 0]) == start
    settings = {"decoder_input_ids": decoder, "eos_token_id": None, **GREEDY}
    fresh = bind()
    want = fresh.generate(**settings)
    assert torch.equal(used.generate(**settings), want)
    assert fresh.composite.parts[0][1].prompt_width == 3


@pytest.mark.parametrize("decoder", [None, [97], [97, 98, 99]])
def test_positions_of_a_trace_begin_after_the_decoder_prompt(decoder: list[int] | None) -> None:
    """The first new token of an encoder-decoder has position 0, with the start token and a decoder prompt before it."""
    model, tokenizer = encoder_decoder_model(), tiny_tokenizer()
    call = logitkit.chain("cfg(2.0)").bind(model, tokenizer, "a prompt", trace=True)
    settings = {} if decoder is None else {"decoder_input_ids": torch.tensor([decoder])}
    call.generate(**settings, do_sample=False, max_new_tokens=3, eos_token_id=None)
    assert [step.position for step in call.trace.steps] == [0, 1, 2]


def test_positions_of_a_trace_begin_after_padding() -> None:
    """Padding is part of the prompt of a causal model."""
    done = logitkit.generate(
        tiny_model(), tiny_tokenizer(), ["a prompt", "b"], chain="cfg(2.0)", trace=True, do_sample=False,
        max_new_tokens=2, eos_token_id=None,
    )  # fmt: skip
    assert [step.position for step in done.trace.steps] == [0, 0, 1, 1]


@pytest.mark.parametrize("way", ["call", "config", "bare"])
@pytest.mark.parametrize("make", [tiny_model, encoder_decoder_model])
def test_told_padding_is_no_text(make: Any, way: str) -> None:
    """Rows that end early are padded with the told id, here a letter; each text is that of the prompt alone."""
    model, tokenizer, prompts = make(), tiny_tokenizer(), ["a prompt", "fox"]
    plain = [logitkit.generate(model, tokenizer, prompt, eos_token_id=None, **GREEDY) for prompt in prompts]
    written = [done.ids[0, -12:].tolist() for done in plain]
    end = next(token for token in written[0][1:] if token not in written[1][:8] and token < 256)
    told: dict[str, Any] = {"eos_token_id": end, "pad_token_id": 97}
    want = [text for prompt in prompts for text in logitkit.generate(model, tokenizer, prompt, **told, **GREEDY).texts]
    call = logitkit.chain("top_k(40)").bind(model, tokenizer, prompts)
    if way == "call":
        output = call.generate(**told, **GREEDY)
    elif way == "config":
        output = call.generate(generation_config=GenerationConfig(**told, **GREEDY))
    else:
        settings = call.settings_for(**told, **GREEDY)
        output = model.generate(**call.inputs, logits_processor=call.processors, **settings)
    assert output[0, -1] == 97 and len(want[0]) < len(want[1])
    assert call.texts(output) == want


def test_padding_of_a_given_generation_config_is_kept() -> None:
    """A call supplies a padding token to a model without one, unless ``generation_config`` states one."""
    model = copy.copy(tiny_model())
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.pad_token_id = None
    call = logitkit.chain("").bind(model, tiny_tokenizer(), ["a prompt", "fox"])
    assert call.generate_kwargs == {"pad_token_id": tiny_tokenizer().pad_token_id}
    config = GenerationConfig(pad_token_id=97)
    assert "pad_token_id" not in call.settings_for(generation_config=config)
    assert call.settings_for(pad_token_id=98)["pad_token_id"] == 98


def test_token_healing_is_refused() -> None:
    """The error points to byte_boundary, which does this within the chain."""
    with pytest.raises(ModeError, match=r"token_healing must not be set.*byte_boundary"):
        logitkit.generate(tiny_model(), tiny_tokenizer(), "a", chain="cfg(2.0)", token_healing=True)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"do_sample": True}])
def test_a_processor_behind_the_chain_leaves_a_token(settings: dict[str, Any]) -> None:
    """A processor that forbids every token that the chain left is named, and token 0 is not written."""
    call = logitkit.chain("suppress_tokens([0, 1]) | top_k(2)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    behind = SuppressTokensLogitsProcessor(list(range(2, 272)))
    with pytest.raises(ScoresError, match=r"only -inf in row 0 .*SuppressTokensLogitsProcessor"):
        call.generate(logits_processor=[behind], **(GREEDY | settings))
    plain = call.generate(**GREEDY)
    harmless = SuppressTokensLogitsProcessor([0])
    assert torch.equal(call.generate(logits_processor=[harmless], **GREEDY), plain)


BEHIND = {
    "appended": lambda call, mine: call.processors.append(mine) or call.processors,
    "inserted": lambda call, mine: call.processors.insert(1, mine) or call.processors,
    "added": lambda call, mine: operator.add(call.processors, [mine]),
    "added in place": lambda call, mine: operator.iadd(call.processors, [mine]),
    "added to others": lambda call, mine: operator.add([TopKLogitsWarper(9)], operator.add(call.processors, [mine])),
    "copied": lambda call, mine: operator.add(call.processors.copy(), LogitsProcessorList([mine])),
    "told": lambda call, mine: call.settings_for(logits_processor=[mine])["logits_processor"],
    "a list of the list": lambda call, mine: LogitsProcessorList(operator.add(call.processors, [mine])),
}


@pytest.mark.parametrize("way", BEHIND)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"do_sample": True, "top_k": 0}])
def test_a_bare_generate_checks_what_follows_the_chain(way: str, settings: dict[str, Any]) -> None:
    """Processors put behind the chain in the list of the call are named when they forbid every token."""
    model = tiny_model()
    call = logitkit.chain("suppress_tokens([0, 1]) | top_k(2)").bind(model, tiny_tokenizer(), "a prompt")
    behind = BEHIND[way](call, SuppressTokensLogitsProcessor(list(range(2, 272))))
    with pytest.raises(ScoresError, match=r"only -inf in row 0 .*SuppressTokensLogitsProcessor"):
        model.generate(**call.inputs, logits_processor=behind, **(GREEDY | settings))


def test_a_harmless_processor_behind_the_chain_changes_nothing_else() -> None:
    """A list of processors holds its items alone; iterating adds one final check behind them, also after pickling."""
    model, mine = tiny_model(), SuppressTokensLogitsProcessor([0])
    call = logitkit.chain("suppress_tokens([0, 1]) | top_k(2)").bind(model, tiny_tokenizer(), "a prompt")
    plain = model.generate(**call.inputs, logits_processor=call.processors, **GREEDY)
    behind = operator.add(call.processors, [mine])
    assert len(call.processors) == len(list(call.processors)) == 1
    assert len(behind) == 2 and behind[1] is mine and len(list(behind.copy())) == 3
    assert len(list(pickle.loads(pickle.dumps(behind)))) == 3
    assert torch.equal(model.generate(**call.inputs, logits_processor=behind, **GREEDY), plain)
    assert torch.equal(model.generate(**call.inputs, **call.settings_for(logits_processor=[mine], **GREEDY)), plain)
    call.processors.append(SuppressTokensLogitsProcessor(list(range(2, 272))))
    with pytest.raises(ScoresError, match="SuppressTokensLogitsProcessor"):
        call.generate(**GREEDY)


def test_the_output_of_continuous_batching_is_refused() -> None:
    """Continuous batching returns three dimensions and drops processors; texts says so instead of returning ''."""
    call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    with pytest.raises(ModeError, match=r"ids \[rows, length\], got \[1, 1, 9\]; continuous batching"):
        call.texts(torch.zeros(1, 1, 9, dtype=torch.long))
    with pytest.raises(ModeError, match="got dict"):
        call.texts({})


HIDDEN: dict[str, dict[str, Any]] = {
    "assistant_tokenizer": {"assistant_tokenizer": tiny_tokenizer()},
    "token_healing": {"token_healing": True},
    "cache_implementation": {"cache_implementation": "paged"},
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("place", ["keyword", "generation_config", "model"])
def test_a_refused_setting_is_refused_wherever_it_is_stated(name: str, place: str) -> None:
    """In a keyword argument, in a GenerationConfig, and in the model's own configuration."""
    model = copy.copy(tiny_model())
    model.generation_config = copy.deepcopy(model.generation_config)
    call = logitkit.chain("cfg(2.0)").bind(model, tiny_tokenizer(), "a prompt")
    settings = HIDDEN[name]
    if place == "model":
        vars(model.generation_config).update(settings)
    given = {"keyword": settings, "generation_config": {"generation_config": GenerationConfig(**settings)}, "model": {}}
    for refuse in (call.settings_for, *(() if name == "assistant_tokenizer" else (call.generate,))):
        with pytest.raises(ModeError, match=f"{name} must not be"):
            refuse(**given[place])


DRAFTED = [{"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1}]


@pytest.mark.parametrize("settings", DRAFTED)
@pytest.mark.parametrize("place", ["keyword", "generation_config", "model"])
def test_drafts_give_the_greedy_text_wherever_they_are_stated(settings: dict[str, Any], place: str) -> None:
    """Early exit and prompt lookup fuse streams, and a Spec that refuses drafts refuses both."""
    model = copy.copy(tiny_model())
    model.generation_config = copy.deepcopy(model.generation_config)
    chain = logitkit.chain("cfg(1.5, negative='a fish')")
    want = chain.bind(model, tiny_tokenizer(), "the sea the sea the").generate(**GREEDY)
    if place == "model":
        vars(model.generation_config).update(settings)
    given = {"keyword": settings, "generation_config": {"generation_config": GenerationConfig(**settings)}, "model": {}}
    call = chain.bind(model, tiny_tokenizer(), "the sea the sea the")
    assert torch.equal(call.generate(**GREEDY, **given[place]), want)
    assert call.trace.fusion.state == "fused"
    assert ("drafts leave out cfg" in call.trace.fusion.reason) == ("assistant_early_exit" in settings)
    bare = model.generate(**call.inputs, logits_processor=call.processors, **GREEDY, **given[place])
    assert torch.equal(bare, want)
    mode = "prompt_lookup" if "prompt_lookup_num_tokens" in settings else "assisted"
    refusing = [dataclasses.replace(spec, modes={mode: "it must not"}) for spec in chain.specs]
    with pytest.raises(ModeError, match=f"cfg: cannot run under {mode}, it must not"):
        refuse_settings(SimpleNamespace(specs=refusing, steps=chain.steps), given[place], model)  # type: ignore[arg-type]


def test_an_end_token_inside_the_removed_bytes_is_refused() -> None:
    """A continuation that spells removed bytes again must not end among them; other end tokens are accepted."""
    model, tokenizer = foreign_model(), foreign_tokenizer()
    call = logitkit.chain("byte_boundary()").bind(model, tokenizer, "one th")
    assert call.prompts.removed == (b" th",)
    ids_of = vocabulary_of(model, tokenizer).ids_of
    (space, *_), (letter, *_) = ids_of[b" "], ids_of[b"z"]
    for attempt in (call.generate, call.settings_for):
        with pytest.raises(ModeError, match=r"eos_token_id must not be a token of the bytes cut .*use stop_strings"):
            attempt(eos_token_id=[letter, space], **GREEDY)
    call.generate(eos_token_id=letter, **GREEDY)


def test_early_exit_needs_layers() -> None:
    """A model over bytes has no layers of its own to leave early; the error is not one of an attribute."""
    model = ByteModel(tiny_model(), tiny_tokenizer())
    call = logitkit.chain("top_k(5)").bind(model, byte_tokenizer(), "a prompt")
    for refuse in (call.generate, call.settings_for):
        with pytest.raises(ModeError, match="assistant_early_exit must not be set, ByteModel has no layers"):
            refuse(assistant_early_exit=1)
