"""Hidden states inside the generating model, which its own forward computed anyway.

`CapturedLayers` keeps the states before some layers at the last position of the last forward. They are used only if
the scores are those of that forward, as in `CapturedOutputs`; else a `Reader` reads the rows again.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs, HiddenStates
from logitkit.processors.engine.model_depth import ModelDepth
from logitkit.processors.engine.riding_tokens import last_state
from logitkit.processors.model_facts import text_config


class CapturedLayers:
    """Hidden states of the generating model before some of its layers, after each row.

    Args:
        binding: names the model. The hooks stay on the model for as long as this object lives.
        layers: numbers of layers, as in ``hidden_states`` of transformers: 0 is the embedding, and n the state after
            n layers. Each is below the number of layers, so that no final norm has been applied.

    Attributes:
        misses: number of times that a reader read the rows.

    Raises:
        ModelError: a model with an encoder or without a base model under its head.

    Example:
        >>> from logitkit.processors.engine import Binding, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> model, prompts = tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> captured = CapturedLayers(Binding(model, tiny_tokenizer(), prompts), [0, 1])
        >>> scores = model(prompts.ids).logits[:, -1]
        >>> captured(prompts.ids, scores).shape, captured.misses
        (torch.Size([1, 2, 32]), 0)
    """

    def __init__(self, binding: Binding, layers: Sequence[int]) -> None:
        model, self.layers, self.misses = binding.model, tuple(layers), 0
        wrapped = LayerStates(model, self.layers)
        self.outputs = CapturedOutputs(binding)
        self.reader = binding.reader(binding.own_prompts(), wrapped, label="layers of the generating model")
        self._last = last = _LastStates(ModelDepth(model))
        hooks = [model.register_forward_hook(last.after_model)]
        modules = decoder_layers(model)
        for layer in self.layers if modules is not None else ():
            before = functools.partial(last.before_layer, layer)
            hooks.append(modules[layer].register_forward_pre_hook(before, with_kwargs=True))  # type: ignore[index]
        for hook in hooks:
            weakref.finalize(self, hook.remove)

    def __call__(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return the states after each row, in the dtype of the model, ``[rows, layers, hidden width]``.

        Args:
            rows: ``[rows, length]``.
            scores: scores of the step, ``[rows, vocab]``; if a processor changed them, a reader reads the rows.
        """
        states = self._last.states
        if len(states) == len(self.layers) and self.outputs.computed(scores):
            return torch.stack([states[layer][: len(scores)] for layer in self.layers], dim=1).to(rows.device)
        self.misses += 1
        read: Tensor = self.reader(rows)
        return read.reshape(len(rows), len(self.layers), -1)


class LayerStates(HiddenStates):
    """A model whose ``logits`` are the states before some layers, one after the other, so that a `Reader` reads them.

    Args:
        model: a decoder-only model with a base model under its head.
        layers: as in `CapturedLayers`.

    Raises:
        ModelError: a model without a base model under its head, or with an encoder.
    """

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        super().__init__(model)
        self.layers = tuple(layers)

    def __call__(self, **inputs: Any) -> Any:
        """Run the base model; ``logits`` are hidden states, ``[rows, tokens, layers * hidden width]``."""
        output = self.base(**inputs, output_hidden_states=True)
        output["logits"] = torch.cat([output.hidden_states[layer] for layer in self.layers], dim=-1)
        return output


def decoder_layers(model: Any) -> torch.nn.ModuleList | None:
    """Return the list of the layers of a decoder, or None where it cannot be told which it is.

    >>> from logitkit.registry.laws import tiny_model
    >>> len(decoder_layers(tiny_model()))
    2
    """
    count = text_config(model).num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    return lists[0] if len(lists) == 1 else None


class _LastStates(threading.local):
    """States at the last position of the last forward of a thread, by layer."""

    def __reduce__(self) -> Any:
        return type(self), ()  # a deep copy of the model has hooks of its own, which have seen no forward

    def __init__(self, depth: ModelDepth | None = None) -> None:
        super().__init__()
        self._depth = depth
        self.states: dict[int, Tensor] = {}
        self._pending: dict[int, Tensor] = {}

    def before_layer(self, layer: int, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the input of a layer until the forward ends."""
        states = args[0] if args else kwargs.get("hidden_states")
        if isinstance(states, Tensor):
            self._pending[layer] = last_state(states).clone()

    def after_model(self, *_: Any) -> None:
        """Keep the states of this forward; drop them when a draft left out layers."""
        lowered = self._depth is None or self._depth.is_lowered()
        self.states, self._pending = {} if lowered else self._pending, {}
