"""Second streams whose prompts hold more than tokens: images, recordings, token types, positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation import utils as generation

from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reading_check import ReadingAbilities, reading_abilities
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import CACHE, with_cache


class InputsReader(Reader):
    """A `Reader` of a decoder-only model whose own prompts come with further inputs, such as images.

    The model reads all own prompts and their inputs in one forward, as `generate` does; later forwards get tokens
    alone. The model's own methods prepare each forward, so that positions and token types continue as in `generate`.

    Args:
        model: a causal language model of transformers.
        own: the reader's prompts as token ids, one for each of ``prompts``, none empty.
        prompts: the prompts of the call.
        inputs: the further inputs of the own prompts, by name, in the form that `generate` takes.
        abilities: as in `Reader`.

    Attributes:
        inputs: the further inputs on the device of the model.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import Reader, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> model, prompts = tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "abc")
        >>> moved = InputsReader(model, [[97, 98, 99]], prompts, inputs={"position_ids": torch.tensor([[4, 5, 6]])})
        >>> plain = Reader(model, [[97, 98, 99]], prompts)
        >>> torch.allclose(moved(prompts.ids), plain(prompts.ids), atol=1e-4), moved.fusable  # positions are relative
        (True, False)
    """

    fusable = False
    why_separate = "the second prompt holds more than tokens"

    def __init__(
        self,
        model: Any,
        own: Sequence[Sequence[int]],
        prompts: Prompts,
        *,
        inputs: Mapping[str, Any],
        abilities: ReadingAbilities | None = None,
    ) -> None:
        super().__init__(model, own, prompts, abilities=abilities or reading_abilities(model, Reader))
        self.inputs = on_device(inputs, model)
        self._source = getattr(model, "prepared_by", model)  # the model whose methods prepare its forwards

    def release(self) -> None:
        """Drop the cache and the prepared inputs; the next call reads from scratch."""
        super().release()
        self._grown: dict[str, Any] = {}  # what generate would hand on after ``_length`` continuation tokens
        self._first: dict[str, Any] = {}  # the same after the prompts
        self._length = 0
        self._output: Any = None  # of the first forward, without logits and cache

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read all own prompts with their inputs in one forward, then the continuations of the rows.

        Images may be stacked over all prompts, so only the prompts together, in their order, belong to them.
        """
        every = torch.arange(len(self._own_ids), device=self._own_ids.device)
        self._cache = DynamicCache(config=text_config(self.model))
        self._cache.activate_past_recording()  # without it, a full sliding window cannot be rewound
        self._index, self._tail, self._logits = every, tail.new_empty(len(every), 0), []
        kwargs: dict[str, Any] = {**self.inputs, "attention_mask": self._own_mask}
        with _kept_rope_deltas(self._source):
            if self.takes_positions and kwargs.get("position_ids") is None:
                kwargs["position_ids"] = self._source._prepare_position_ids_for_generation(self._own_ids, kwargs)
            if not self._padded:
                kwargs["attention_mask"] = None
            output = self._prepared_forward(self._own_ids, None, 1, kwargs, is_first_iteration=True)
            self._push(self._counted(output, self._own_ids, 1), self._own_ids.shape[1], 1)
        for name in (CACHE, "logits"):
            output[name] = None
        dropped = generation.MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL
        self._output = type(output)(**{name: value for name, value in output.items() if value is not None})
        self._first = self._grown = {name: value for name, value in kwargs.items() if name not in dropped}
        self._length = 0
        self._select(index)
        if tail.shape[1]:
            self._feed(tail, count)

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the model on a chunk after the cached tokens; return its last logits, ``[rows, count, vocab]``.

        Args:
            chunk: tokens, ``[rows, tokens]``; they are the end of the cached continuations already.
            positions: unused; `generate` continues the positions of the prompts.
            count: number of last tokens.
        """
        rows = torch.cat([self._own_ids[self._index], self._tail], dim=1)
        kwargs = {name: self._of_rows(name, value) for name, value in self._grown_to(self._tail.shape[1]).items()}
        output = self._prepared_forward(rows, chunk.shape[1], count, kwargs)
        return self._counted(output, chunk, count)

    def _crop(self, removed: int) -> None:
        """Drop the last ``removed`` tokens of each cached row; layers that hold images instead of tokens keep them."""
        crossing = getattr(text_config(self.model), "cross_attention_layers", None) or ()
        images = [(layer, layer.keys, layer.values) for layer in (self._cache.layers[number] for number in crossing)]
        super()._crop(removed)
        for layer, keys, values in images:
            layer.keys, layer.values = keys, values

    def _prepared_forward(self, rows: Tensor, new: int | None, count: int, kwargs: Any, **further: Any) -> Any:
        """Run a forward over the last ``new`` tokens of the rows (None: all), prepared as `generate` prepares it."""
        limit: dict[str, Any] = {"logits_to_keep": count} if self._limits_logits else {}
        settings = with_cache(self._cache) | limit | kwargs | further
        prepared = self._source.prepare_inputs_for_generation(rows, next_sequence_length=new, **settings)
        return forwarded(self.model, **prepared)

    def _grown_to(self, length: int) -> dict[str, Any]:
        """Return the inputs after ``length`` continuation tokens, for all own prompts, as `generate` extends them."""
        if length < self._length:
            self._grown, self._length = self._first, 0
        while self._length < length:
            self._grown = self._source._update_model_kwargs_for_generation(
                self._output, dict(self._grown), is_encoder_decoder=False
            )
            self._length += 1
        return self._grown

    def _of_rows(self, name: str, value: Any) -> Any:
        """Return the entries that belong to the cached rows; values with another first dimension are shared."""
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        dim = 1 if name == "position_ids" and value.ndim == 3 else 0  # a plane for each axis of an image
        return value.index_select(dim, self._index) if value.shape[dim] == len(self._own_ids) else value


def on_device(inputs: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Return inputs with their tensors on the device of a model.

    >>> import torch
    >>> from logitkit.registry.laws import tiny_model
    >>> on_device({"pixel_values": torch.zeros(1), "return_all": True}, tiny_model())
    {'pixel_values': tensor([0.]), 'return_all': True}
    """
    return {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


@contextmanager
def _kept_rope_deltas(model: Any) -> Iterator[None]:
    """Restore what a model with three-dimensional positions notes about its last prompts.

    `generate` reads the note only where it continues a cache of an earlier call, and that cache is not the reader's.
    """
    noted = [(part, part.rope_deltas) for part in model.modules() if "rope_deltas" in vars(part)]
    try:
        yield
    finally:
        for part, deltas in noted:
            part.rope_deltas = deltas
