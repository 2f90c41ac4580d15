"""Attach a chain to a model, so that every ``generate`` that others call is bound to it on its own inputs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from logitkit.errors import ModeError, UnknownNameError
from logitkit.processors.engine.prompt_inputs import belongs_to_generate, input_names
from logitkit.processors.engine.trace import Trace
from logitkit.registry import attached_generate
from logitkit.registry.bind import bind, check_pair
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.extra_inputs import extra_inputs
from logitkit.registry.named_resources import named_objects
from logitkit.registry.preloading import preload


class Attachment:
    """A chain attached to a model; made by `logitkit.attach`, ended by `detach` or at the end of a ``with`` block.

    Attributes:
        model, tokenizer, chain: as attached.
        active: whether `detach` has not been called.
        calls: number of ``generate`` calls that have run with the chain.
        trace: counters of the last one that ended, as plain data; None before.

    >>> import logitkit
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> model, inputs = tiny_model(), tiny_tokenizer()("a prompt", return_tensors="pt")
    >>> with logitkit.attach(model, tiny_tokenizer(), "cfg(2.0)") as attachment:
    ...     ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    >>> attachment.calls, attachment.trace.calls, attachment.active
    (1, 4, False)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chain: Chain,
        *,
        resources: Mapping[str, Any] | None = None,
        tokenizers: Mapping[str, Any] | None = None,
    ) -> None:
        for spec in chain.specs:
            if spec.rewrites_prompt:
                raise ModeError(
                    f"attach: a chain must leave the prompts as they are, got {spec.name}, which rewrites their ends, "
                    "while callers cut rows at the length of the prompt that they gave; use logitkit.generate"
                )
        self.model, self.tokenizer, self.chain = model, tokenizer, chain
        self.active, self.calls = True, 0
        self.trace: Trace | None = None
        self._given = named_objects("attach", "resources", resources)
        self._tokenizers = named_objects("attach", "tokenizers", tokenizers)
        unknown = sorted(set(self._given) - set(chain.resource_names))
        if unknown:
            raise UnknownNameError("resource of the chain", unknown[0], chain.resource_names, "no parameter names it")
        self._preloaded = preload(chain, like=model, known=self._given)
        self._lock = threading.Lock()
        attached_generate.add(model, self._generate)

    def detach(self) -> None:
        """Give ``model.generate`` back as it was; a second call does nothing. Calls that run already end as begun."""
        self.active = False
        attached_generate.remove(self.model, self._generate)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached to" if self.active else "detached from"
        return f"<chain {str(self.chain)!r} {state} {type(self.model).__name__}>"

    def _generate(self, settings: dict[str, Any]) -> Any:
        """Bind the chain to the inputs of one ``generate`` and run it; return what ``generate`` returns."""
        inputs, settings = _split(self.model, settings)
        call = bind(
            self.chain,
            self.model,
            self.tokenizer,
            inputs,
            trace=False,
            tokenizers=self._tokenizers,
            resources=self._given,
            kept=self._preloaded.tables,
            load=self._preloaded.load,
        )
        output = call.generate(**settings)
        with self._lock:
            self.calls, self.trace = self.calls + 1, call.trace.plain()
        return _with_given_ids(call, output, inputs)


def attach(
    model: Any,
    tokenizer: Any,
    chain: Any = None,
    *,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
) -> Attachment:
    """Bind every ``generate`` of a model to a chain, each on its own inputs, until it is detached.

    For a ``generate`` that you do not call yourself: pipelines, trainers, agents and servers. ``model.generate`` takes
    and returns what it did before, and rows begin with the given ids. Of several attached chains the last one is used;
    it does not add to the others. Calls of `Call.generate` and `logitkit.generate` use their own chain. Models and
    tables that the chain names are loaded once.

    Args:
        model: a transformers model. Threads that generate with it at the same time each have a call of their own.
        tokenizer: its tokenizer.
        chain: text, list or Chain; None: the chain that `Chain.save` wrote into the folder of the model.
        resources, tokenizers: as in `logitkit.generate`.

    Returns:
        An `Attachment`: a handle with ``detach()``, and a context manager.

    Raises:
        ChainError, ParameterError, UnknownNameError: a chain that cannot be used.
        ModelError: a model that cannot generate, or something else in the place of the tokenizer.
        ModeError: a step that rewrites prompts, such as ``byte_boundary``.
        FileFormatError: the folder of the model holds no saved chain.

    At each ``generate``:
        ModeError: inputs without ``input_ids``, or settings under which the chain would be ignored or wrong.
        PromptError: input ids that cannot be read.

    >>> import copy
    >>> from transformers import pipeline
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> tokenizer = copy.deepcopy(tiny_tokenizer())  # a pipeline sets the side on which it pads
    >>> generator = pipeline("text-generation", model=tiny_model(), tokenizer=tokenizer)
    >>> with attach(tiny_model(), tokenizer, "suppress_tokens([101])"):
    ...     done = generator("the", max_new_tokens=8, do_sample=False, return_full_text=False)
    >>> "e" in done[0]["generated_text"]
    False
    """
    check_pair("attach", model, tokenizer)
    chosen = Chain.saved(str(model.config.name_or_path)) if chain is None else Chain(chain)
    return Attachment(model, tokenizer, chosen, resources=resources, tokenizers=tokenizers)


def _split(model: Any, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs to bind, and the settings, of a ``generate``.

    Raises:
        ModeError: there are no input ids.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    ids = settings.pop("inputs", None)
    ids = settings.pop("input_ids", ids)
    if ids is None:
        got = ", ".join(sorted(settings)) or "nothing"
        raise ModeError(
            f"attach: generate must be given input_ids while a chain is attached, got {got}; "
            "encode the prompts, or detach the chain"
        )
    inputs = {"input_ids": ids}
    if "attention_mask" in settings:
        inputs["attention_mask"] = settings.pop("attention_mask")
    names = input_names(model)
    for name in extra_inputs(model, settings):  # images and the like belong to the prompts, so that streams get them
        if name in names and not belongs_to_generate(name):
            inputs[name] = settings.pop(name)
    return inputs, settings


def _with_given_ids(call: Call, output: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the output with rows that begin with the ids as given, which `bind` may have padded otherwise."""
    given = torch.as_tensor(inputs["input_ids"]).to(call.prompts.ids.device)
    if call.prompts.in_encoder or torch.equal(given, call.prompts.ids):
        return output
    ids = call.ids(output)
    begun = given.repeat_interleave(len(ids) // len(given), dim=0)
    ids = torch.cat([begun, ids[:, call.prompts.width :]], dim=1)
    if isinstance(output, Tensor):
        return ids
    assert isinstance(output, ModelOutput)
    output["sequences"] = ids
    return output
