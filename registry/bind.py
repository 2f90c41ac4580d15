"""Bind a chain to a model, a tokenizer and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logitkit import models
from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import is_chat
from logitkit.processors.engine.prompt_inputs import refuse_missed, refuse_missing_media
from logitkit.processors.engine.prompts import Prompts, read_prompts
from logitkit.processors.engine.trace import Trace
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.named_resources import named_objects
from logitkit.registry.no_effect import warn_of_no_effect


def bind(  # Over 40 lines: every argument has a line of its own
    chain: Chain,
    model: Any,
    tokenizer: Any,
    prompts: Any,
    *,
    trace: bool,
    tokenizers: Mapping[str, Any] | None,
    resources: Mapping[str, Any] | None,
    template: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
    load: Callable[..., tuple[Any, Any]] = models.load,
    warn: bool = True,
) -> Call:
    """Build the processors of a chain for one call; errors as in `Chain.bind`.

    Args:
        chain, model, tokenizer, prompts, trace, tokenizers, resources, template: as in `Chain.bind`.
        kept: further objects by name, which a chain may leave unused.
        load: loads the models that parameters name, as `logitkit.models.load` does.
        warn: give a `NoEffectWarning` where a step can change no score.
    """
    chain.require_packages()
    check_pair("bind", model, tokenizer)
    if not isinstance(trace, bool):
        way_out = "pass an object that the chain names 'trace' in resources"
        raise ParameterError("bind", "trace", "True or False", type(trace).__name__, way_out)
    resources = named_objects("bind", "resources", resources)
    if not isinstance(template, Mapping | None):
        raise ParameterError("bind", "template", "a dict of arguments of the chat template, or None", template)
    user_prompts = read_prompts(tokenizer, model, prompts, template=template)
    _check_template(template, user_prompts, chain)
    binding = Binding(
        model,
        tokenizer,
        user_prompts,
        resources={**(kept or {}), **resources},
        tokenizers=named_objects("bind", "tokenizers", tokenizers),
        trace=Trace(recording=trace),
        load=load,
        cache=models.cache_folder(),
    )
    steps = [(spec, parameters) for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True)]
    for spec, parameters in steps:  # every rewrite of the prompts comes before the first reader of them
        if spec.rewrites_prompt:
            refuse_missed(user_prompts.inputs, spec.name, "since it rewrites the tokens alone; leave it out")
            binding.prompts = spec.factory.prepare(binding, **spec.filled(parameters)) or binding.prompts
    parts: list[tuple[str, Any]] = []
    for spec, parameters in steps:
        if spec.kind == "processor":
            parts.append((spec.name, spec.build(binding.after(parts), parameters)))
    call = Call(chain, binding, user_prompts, parts)
    unused = sorted(set(resources) - binding.used)
    if unused:
        raise UnknownNameError("resource of the chain", unused[0], binding.used, "no parameter names it")
    _refuse_unread_inputs(binding)
    if warn:
        warn_of_no_effect(steps, binding.no_effect)
    call.warns = warn
    return call


def _check_template(template: Any, prompts: Prompts, chain: Chain) -> None:
    """Refuse template arguments where no chat is written: neither the prompts nor a parameter of the chain are chats.

    Raises:
        ParameterError: as said.
    """
    if not template or prompts.messages[0] is not None:
        return
    given = [value for _, parameters in chain.steps for value in parameters.values() if isinstance(value, Sequence)]
    if not any(is_chat(value) or any(is_chat(item) for item in value) for value in given):
        way_out = "pass the prompts as chat messages, or leave template out"
        raise ParameterError("bind", "template", "None where the prompts are texts or encoded", template, way_out)


def check_pair(owner: str, model: Any, tokenizer: Any) -> None:
    """Check that a model can generate and that a tokenizer is one.

    Raises:
        ModelError: names the argument that is something else.
    """
    if not hasattr(model, "generate") or not hasattr(model, "generation_config"):
        got = repr(model) if isinstance(model, str) else type(model).__name__
        way_out = f"; load it: model, tokenizer = logitkit.models.load({model!r})" if isinstance(model, str) else ""
        raise ModelError(f"{owner}: model must be a transformers model with generate, got {got}{way_out}")
    if isinstance(tokenizer, str) or not hasattr(tokenizer, "decode"):
        got = repr(tokenizer) if isinstance(tokenizer, str) else type(tokenizer).__name__
        way_out = f"write {owner}(model, tokenizer, ...)"
        raise ModelError(f"{owner}: tokenizer must be a tokenizer of transformers, got {got}; {way_out}")


def _refuse_unread_inputs(binding: Binding) -> None:
    """Refuse second streams that read images, or what else the prompts hold, as if it were text.

    Raises:
        ModeError: names the inputs and the stream.
    """
    for name, reader in binding.trace.readers.items():
        if not binding.made(reader):  # a processor made a reader of its own
            refuse_missed(binding.prompts.inputs, name, "since its reader takes tokens alone; leave them out")
        refuse_missing_media(binding.model, binding.own_prompts(), binding.prompts.inputs, name)
        for model in (binding.model, getattr(reader, "model", None)):
            refuse_missing_media(model, getattr(reader, "own", ()), getattr(reader, "inputs", ()), name)
