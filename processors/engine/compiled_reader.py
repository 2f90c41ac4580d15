"""Second streams of other models beside a `generate` with a static cache and a compiled forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.model_forward import forwarded_by
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reading_check import ReadingAbilities, reading_abilities
from logitkit.processors.engine.shared_vocabulary import SharedIdsModel
from logitkit.processors.engine.static_settings import LONGEST_CACHE
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import with_cache


class CompiledReader(Reader):
    """A `Reader` of another model that reads as the running `generate` does: compiled where `generate` compiles.

    Beside a `generate` with a static cache and a compiled forward, the reader has a static cache too, and reads each
    single token with the compiled forward that `generate` of its model would use. Prompts and chunks of several tokens
    are read eagerly. Beside any other `generate` it is a `Reader`. A static cache cannot drop tokens, so rows that are
    no continuation of the cached rows are read from their prompts in one forward, into the same cache.

    Args:
        model: a model for which `can_read_compiled` holds.
        own: the reader's prompts as token ids, one for each of ``prompts``, none empty.
        prompts: the prompts of the call.
        settings: what `generate` is told.
        abilities: as in `Reader`.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> settings = CallSettings(tiny_model(), prompts)
        >>> reader = CompiledReader(tiny_model(1), [[1, 2, 3]], prompts, settings=settings)
        >>> reader(prompts.ids).shape
        torch.Size([1, 272])
    """

    def __init__(
        self,
        model: Any,
        own: Sequence[Sequence[int]],
        prompts: Prompts,
        *,
        settings: CallSettings,
        abilities: ReadingAbilities | None = None,
    ) -> None:
        self._settings = settings
        self._compiled: Callable[..., Any] | None = None  # the compiled forward; None: the cache is dynamic
        self._room = 0  # tokens that the static cache can hold
        super().__init__(model, own, prompts, abilities=abilities or reading_abilities(model, Reader))

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read prompts and continuations with a new cache, or into the static cache of as many rows."""
        if self._compiles():
            self._start(index, tail, count)  # rows of one prompt are read as `generate` reads them
        else:
            super()._open(index, tail, count)

    def _compiles(self) -> bool:
        """Return whether the running `generate` would compile this model."""
        static = self._settings.static
        return static is not None and static.compiles(self.model)

    def _start(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read own prompts and continuations in one forward."""
        static = self._settings.static
        if static is None or not self._compiles():
            self._compiled = None
            super()._start(index, tail, count)
            return
        self._compiled = self.model.get_compiled_call(static.compile_config)
        self._cache = self._static_cache(len(index), max(self.width + static.new_tokens, static.least_length), tail)
        self._read_own(index, tail, count)

    def _static_cache(self, rows: int, length: int, tail: Tensor) -> Any:
        """Return an empty static cache; the longest one of a model fits its compiled forward, as in `generate`."""
        needed = self.width + tail.shape[1]
        if needed >= length:  # rows longer than `generate` was told
            length = 2 * needed
        facts = vars(getattr(self.model, "checked_as", self.model))
        length = facts[LONGEST_CACHE] = max(length, facts.get(LONGEST_CACHE, 0))
        if isinstance(self._cache, StaticCache) and (self._room, len(self._index)) == (length, rows):
            self._cache.reset()
            return self._cache
        self._room, self._cache = length, None  # the old cache is freed first
        return StaticCache(text_config(self.model), length)

    def _reorder(self, source: Tensor) -> None:
        """Reorder keys and values; in a static cache in place, since a compiled forward knows their addresses."""
        if self._compiled is None or len(source) != len(self._index):
            super()._reorder(source)
            return
        for layer in self._cache.layers:
            if layer.is_initialized:
                layer.keys.copy_(layer.keys[source])
                layer.values.copy_(layer.values[source])

    def _feed(self, chunk: Tensor, count: int) -> None:
        """Feed a chunk after the cached tokens; a static cache that is too short is replaced by a longer one."""
        if self._compiled and self.width + self._tail.shape[1] + chunk.shape[1] > self._room:
            self._start(self._index, torch.cat([self._tail, chunk.to(self._tail.device)], dim=1), count)
        else:
            super()._feed(chunk, count)

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the model on a chunk after the cached tokens; return its last logits, ``[rows, count, vocab]``."""
        if self._compiled is None:
            return super()._forward(chunk, positions, count)
        # Always a mask, as `generate` has one: rows with and without padding then share one compiled forward.
        mask = torch.cat([self._own_mask[self._index], torch.ones_like(self._tail)], dim=1)
        settings = with_cache(self._cache) | {"attention_mask": mask}
        if self.takes_positions:
            settings["position_ids"] = positions
        if self._limits_logits:
            settings["logits_to_keep"] = count
        inputs = self.model.prepare_inputs_for_generation(chunk, next_sequence_length=chunk.shape[1], **settings)
        single = chunk.shape[1] == 1 and bool(self._tail.shape[1])
        output = forwarded_by(self._compiled if single else self.model, self.model, **inputs)
        # A compiled forward would write over its own output.
        output["logits"] = output.logits[:, -count:].to(torch.float32, copy=True)
        return self._counted(output, chunk, count)


def can_read_compiled(model: Any) -> bool:
    """Return whether transformers can run a model with a static cache of attention layers and a compiled forward.

    Args:
        model: the model of a stream. Models that the user compiled are left as they are.

    >>> from logitkit.registry.laws import tiny_model
    >>> can_read_compiled(tiny_model())
    True
    """
    whole = model.checked_as if isinstance(model, SharedIdsModel) else model
    if not isinstance(whole, PreTrainedModel) or not whole._can_compile_fullgraph:
        return False
    if getattr(whole, "_compiled_call_impl", None) is not None or whole.config.is_encoder_decoder:
        return False
    try:
        layers = StaticCache(text_config(whole), 1).layers
    except KeyError:  # a layer of this kind has no static form
        return False
    return all(isinstance(layer, StaticLayer) for layer in layers)
