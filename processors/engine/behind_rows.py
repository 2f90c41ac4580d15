"""The generating model's next-token logits after a row and a short text behind it.

The text is read behind the KV cache of the generating model itself: in a shallow copy of the cache, whose layers
append to new tensors, so that the cache of `generate` keeps every bit and no second cache is kept. This needs the
forward that computed the scores of the step, a cache of keys and values with one entry for each token of the rows, and
a model that reads chunks exactly. Anywhere else (other rows than those of the last forward, static caches, recurrent
states, images, encoders) a `Reader` of the generating model reads the rows and the text.
"""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from logitkit.errors import ModelError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.streams import stacked_positions
from logitkit.processors.transformers_api import cache_of, with_cache

# The dictionaries in which torch.nn.Module keeps its forward hooks and their options.
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class BehindRows:
    """Next-token logits of the generating model after each row and a text; a `Stream`.

    Args:
        binding: the call. A hook stays on its model for as long as this object lives.
        ids: token ids of the text, not empty.

    Attributes:
        forwards: forwards behind the cache of the generating model so far; those of the reader are counted there.
        tokens: tokens of the text that these forwards read, summed over rows.

    Example:
        >>> from logitkit.processors.engine import Binding, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> stream = BehindRows(Binding(tiny_model(), tiny_tokenizer(), prompts), [7, 8])
        >>> stream(prompts.ids).shape
        torch.Size([1, 272])
    """

    fusable = False
    why_separate = "the text behind the rows is read behind the generating model's own cache"

    def __init__(self, binding: Binding, ids: Sequence[int]) -> None:
        self.model, self.prompts, self.ids = binding.model, binding.prompts, torch.tensor([list(ids)])
        self.forwards = self.tokens = 0
        self.captured = CapturedOutputs(binding)
        self._last = last = _LastCache()
        parameters = inspect.signature(self.model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._limits_logits = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        weakref.finalize(self, self.model.register_forward_hook(last.after_model, with_kwargs=True).remove)

    def __reduce__(self) -> Any:
        raise ModelError("BehindRows: cannot be pickled, because it holds a model; pickle the chain and bind it again")

    def __call__(self, rows: Tensor) -> Tensor:
        """Return fp32 logits of the token after each row and the text, ``[rows, vocab]``, by the reader."""
        return self.captured.reader(torch.cat([rows, self.ids.to(rows.device).expand(len(rows), -1)], dim=1))

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes and the text, ``[rows, count, vocab]``."""
        return stacked_positions(self, rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward."""
        return self(rows) if bool(wanted.any()) else None

    @torch.no_grad()
    def of_step(self, rows: Tensor, scores: Tensor, numbers: Tensor) -> Tensor:
        """Return the logits of some rows, behind the cache of the generating model where the step allows it.

        Args:
            rows: ``[rows, length]``.
            scores: the scores of the step, ``[rows, vocab]``.
            numbers: numbers of the rows to read, ``[part]``, not empty.

        Returns:
            fp32, ``[part, vocab]``, on the device of the rows.
        """
        cache = self._usable_cache(rows, scores)
        if cache is None:
            return self(rows)[numbers]
        branch = copy.copy(cache)
        branch.layers = [copy.copy(layer) for layer in cache.layers]
        if len(numbers) < len(rows):
            branch.batch_select_indices(numbers)
        chunk = self.ids.to(rows.device).expand(len(numbers), -1)
        mask = self._mask(rows)[numbers]  # [part, length]
        extra: dict[str, Any] = dict(self._limits_logits)
        if self.prompts.padded:
            extra["attention_mask"] = torch.cat([mask, torch.ones_like(chunk)], dim=1)
        if self._takes_positions:
            extra["position_ids"] = mask.sum(-1, keepdim=True) + torch.arange(chunk.shape[1], device=rows.device)
        output = forwarded(_without_hooks(self.model), input_ids=chunk, **with_cache(branch), **extra)
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -1].float().to(rows.device)  # type: ignore[no-any-return]

    def _usable_cache(self, rows: Tensor, scores: Tensor) -> Any:
        """Return the cache of the forward that computed these scores, or None where it cannot be branched exactly."""
        cache = self._last.cache() if self._last.cache is not None else None
        if type(cache) is not DynamicCache or self.prompts.in_encoder or self.prompts.inputs:
            return None
        layers: list[Any] = cache.layers
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            return None
        fits = layers[0].is_initialized and len(layers[0].keys) == len(rows) and self.captured.reader.abilities.chunks
        if not fits or cache.get_seq_length() != rows.shape[1] or rows.device != layers[0].keys.device:
            return None
        return cache if self.captured.computed(scores) else None

    def _mask(self, rows: Tensor) -> Tensor:
        """Return 1 for each token and 0 for padding, ``[rows, length]``."""
        own = self.prompts.mask.to(rows.device)[self.prompts.rows(rows)]
        return torch.cat([own, torch.ones_like(rows[:, self.prompts.width :])], dim=1)


def _without_hooks(model: Any) -> Any:
    """Return a shallow copy of a model without hooks, so that captured outputs stay those of the step."""
    copied = object.__new__(type(model))
    vars(copied).update(vars(model))
    for name in HOOKS:
        vars(copied)[name] = OrderedDict()
    return copied


class _LastCache(threading.local):
    """The cache of the last forward of a thread, by a weak reference."""

    cache: Any = None

    def __reduce__(self) -> Any:
        return type(self), ()  # a deep copy of the model has hooks of its own, which have seen no forward

    def after_model(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Remember the cache."""
        cache = cache_of(output) if isinstance(output, dict) else None
        cache = cache_of(kwargs) if cache is None else cache
        self.cache = None if cache is None else weakref.ref(cache)
