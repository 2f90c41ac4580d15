"""The reader that fits a stream: what its model is, and what its prompts hold besides tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.compiled_reader import CompiledReader, can_read_compiled
from logitkit.processors.engine.encoder_decoder_reader import EncoderDecoderReader
from logitkit.processors.engine.inputs_reader import InputsReader
from logitkit.processors.engine.prompt_inputs import inputs_of_stream, refuse_missed
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader


def new_reader(
    model: Any, own: Sequence[Sequence[int]], prompts: Prompts, inputs: Mapping[str, Any], settings: CallSettings
) -> Reader:
    """Return a reader of the kind that a model and its inputs need.

    Args:
        model: the model of the stream.
        own: the stream's prompts as token ids.
        prompts: the prompts of the call.
        inputs: what the stream's prompts hold besides tokens, by name.
        settings: what `generate` is told.

    >>> from logitkit.processors.engine import read_prompts
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> model, prompts = tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "ab")
    >>> type(new_reader(model, [[97]], prompts, {}, CallSettings(model, prompts))).__name__
    'Reader'
    """
    if model.config.is_encoder_decoder:
        return EncoderDecoderReader(model, own, prompts, inputs=inputs, settings=settings)
    if inputs:
        return InputsReader(model, own, prompts, inputs=inputs)
    if can_read_compiled(model) and not settings.are_of(model):
        return CompiledReader(model, own, prompts, settings=settings)
    return Reader(model, own, prompts)


def carried_inputs(
    prompts: Prompts, own: Sequence[Sequence[int]], model: Any, label: str, *, like: Any
) -> dict[str, Any]:
    """Return what a stream reads of the inputs besides tokens that the prompts of a call hold.

    Args:
        prompts: the prompts of the call.
        own: the stream's prompts as token ids.
        model: the model of the stream.
        label: name of the stream.
        like: the generating model.

    Raises:
        ModeError: the stream has other prompts, or its model does not take the inputs.

    >>> from logitkit.processors.engine import read_prompts
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), {"input_ids": [[7, 8]], "position_ids": [[4, 5]]})
    >>> carried_inputs(prompts, [[7, 8]], tiny_model(1), "large", like=tiny_model())
    {'position_ids': tensor([[4, 5]])}
    """
    if not prompts.inputs:
        return {}
    if [list(ids) for ids in own] != [prompts.tokens(number) for number in range(len(prompts))]:
        way_out = "use a stream that reads the same prompt, or cfg(negative_inputs=...)"
        refuse_missed(prompts.inputs, label, f"since its prompt is another one; {way_out}")
    return inputs_of_stream(model, prompts.inputs, label, like=like)
