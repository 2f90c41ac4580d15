"""Helper models: own prompts, chat templates, and a main model with an encoder."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import logitkit
from ensembles import PROMPTS, RESOURCES, TOKENIZERS, decode
from fakes import encoder_decoder_model
from foreign import foreign_tokenizer
from logitkit.errors import ModelError
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def with_template(tokenizer: Any, template: str) -> Any:
    """Return a copy of a tokenizer with a chat template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_a_chat_is_written_in_each_models_own_template() -> None:
    """A helper reads its own template, system prompt included; only the continuation is tokenized again."""
    main = with_template(tiny_tokenizer(), "{% for m in messages %}[{{ m.content }}]{% endfor %}")
    far = with_template(foreign_tokenizer(), "<begin>Be brief.{% for m in messages %}Q: {{ m.content }} A:{% endfor %}")
    chat = [{"role": "user", "content": "on the"}]
    call = logitkit.chain("ensemble(models=['far'])").bind(
        tiny_model(), main, [chat], tokenizers={"far": far}, far=RESOURCES["far"]
    )
    decode(call)
    reader = call.composite.parts[0][1].helpers[0].read
    assert call.prompts.texts == ("[on the]",)
    assert far.decode(reader.own[0]).startswith("<begin>Be brief.Q: on the A:") and reader.own[0][0] == 1
    with pytest.raises(ModelError, match="'far' must have a chat template"):
        logitkit.chain("ensemble(models=['far'])").bind(
            tiny_model(), main, [chat], tokenizers={"far": foreign_tokenizer()}, far=RESOURCES["far"]
        )
    plain = logitkit.chain("ensemble(models=['far'], prompts={'far': 'Q: on the A:'})").bind(
        tiny_model(), main, [chat], tokenizers={"far": foreign_tokenizer()}, far=RESOURCES["far"]
    )
    assert plain.composite.parts[0][1].helpers[0].read.own == (tuple(foreign_tokenizer()("Q: on the A:")["input_ids"]),)


def test_a_main_model_with_an_encoder() -> None:
    """With an encoder-decoder main model, a helper reads its own prompt and the bytes of the decoder tokens."""
    main = encoder_decoder_model()
    call = logitkit.chain("ensemble(models=['far'], align='gac')").bind(
        main, tiny_tokenizer(), PROMPTS[:1], tokenizers=TOKENIZERS, far=RESOURCES["far"]
    )
    decoded = decode(call)
    reader = call.composite.parts[0][1].helpers[0].read
    foreign, tiny = Vocabulary.of(foreign_tokenizer()), Vocabulary.of(tiny_tokenizer(), 272)
    own = foreign_tokenizer()(PROMPTS[0])["input_ids"]
    assert reader._rows[0][: len(own)] == own
    assert foreign.join(reader._rows[0][len(own) :]) == tiny.join(decoded[0, :-1].tolist())
