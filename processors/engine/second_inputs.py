"""Encodings that a processor gets by name for its second stream, for instance with distorted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logitkit.errors import ParameterError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.prompt_inputs import inputs_of_prompts, refuse_missing_media
from logitkit.processors.engine.prompts import read_prompts


def second_inputs(binding: Binding, owner: str, parameter: str, name: str) -> tuple[list[list[int]], dict[str, Any]]:
    """Return the prompts of a second stream, and their inputs besides tokens, from an encoding passed to ``bind``.

    Args:
        binding: the call.
        owner: the processor, for errors.
        parameter: the parameter that holds the name, for errors.
        name: under which ``chain.bind`` received the encoding. With ``input_ids`` it is the whole prompt of the
            stream. Without them the stream reads the prompts of the call, and the encoding replaces some of their
            inputs, such as ``pixel_values``.

    Raises:
        ParameterError: no encoding, or one of another number of prompts.
        PromptError: an input that the model does not take.
        ModeError: image tokens without images.

    Example:
        >>> from logitkit.processors.engine import Binding, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
        >>> binding = Binding(tiny_model(), tiny_tokenizer(), prompts, resources={"other": {"input_ids": [[7, 8]]}})
        >>> second_inputs(binding, "cfg", "negative_inputs", "other")
        ([[7, 8]], {})
    """
    encoding = binding.resource(name)
    if not isinstance(encoding, Mapping) or not encoding:
        raise ParameterError(owner, parameter, "the name of an encoding passed to bind", type(encoding).__name__)
    if "input_ids" not in encoding:
        own, inputs = binding.own_prompts(), {**binding.prompts.inputs, **inputs_of_prompts(binding.model, encoding)}
        refuse_missing_media(binding.model, own, inputs, name)
        return own, inputs
    prompts = read_prompts(binding.tokenizer, binding.model, encoding)
    if len(prompts) != len(binding.prompts):
        rule = f"the name of an encoding of {len(binding.prompts)} prompt(s), one for each prompt of the call"
        raise ParameterError(owner, parameter, rule, f"an encoding of {len(prompts)}")
    own = [prompts.tokens(number) for number in range(len(prompts))]
    refuse_missing_media(binding.model, own, prompts.inputs, name)
    return own, dict(prompts.inputs)
