"""The generating model's next-token logits after a row and a short text behind it.

The text is read behind the KV cache of the generating model itself: in a shallow copy of the cache, whose layers
append to new tensors, so that the cache of `generate` keeps every bit and no second cache is kept. This needs the
forward that computed the rows of the step, a cache of keys and values with one entry for each token of the rows, and
a model that reads chunks exactly. `FusedStreams` states which rows are in the cache, or has read the text in the
forward of the rows already; in a bare `generate`, the scores of the step must be those of the last forward. Anywhere
else (other rows than those of the last forward, static caches, recurrent states, images, encoders) a `Reader` of the
generating model reads the rows and the text.
"""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from logitkit.errors import ModelError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.model_forward import forwarded, forwarding_model
from logitkit.processors.engine.partial_rows import Part, PartialRows, over_whole_batch
from logitkit.processors.engine.streams import stacked_positions
from logitkit.processors.engine.thin_matmul import in_faster_order
from logitkit.processors.transformers_api import cache_of, with_cache

# The dictionaries in which torch.nn.Module keeps its forward hooks and their options.
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class CachedRows(NamedTuple):
    """The rows of the last forward of the generating model, as its cache holds them.

    Attributes:
        rows: ``[rows, length]``; recognised by identity.
        cache: its first rows are these rows.
        mask: 1 for each token and 0 for padding in the cache, ``[rows, columns]``.
        padded: whether the cache holds padding.
        behind: logits after each row and the text, ``[rows, vocab]``; None: the forward did not read the text.
    """

    rows: Tensor
    cache: Any
    mask: Tensor
    padded: bool
    behind: Tensor | None = None


class BehindRows(PartialRows):
    """Next-token logits of the generating model after each row and a text; a `Stream`.

    Args:
        binding: the call. A hook stays on its model for as long as this object lives.
        ids: token ids of the text, not empty.

    Attributes:
        forwards: forwards behind the cache of the generating model so far; those of the reader are counted there.
        tokens: tokens of the text that these forwards read, summed over rows.
        requests: requests of a step so far.
        requested_rows: rows that these requests asked for.

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
        self.model, self.prompts = binding.model, binding.prompts
        self.ids = torch.tensor([list(ids)], device=self.prompts.ids.device)
        self.forwards = self.tokens = self.requests = self.requested_rows = 0
        self.captured = CapturedOutputs(binding)
        self._cached: CachedRows | None = None
        self._last = last = _LastCache()
        self._forwarding = forwarding_model(self.model)  # its forwards fill the cache
        parameters = inspect.signature(self._forwarding.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._limits_logits = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        weakref.finalize(self, self.model.register_forward_hook(last.after_model, with_kwargs=True).remove)

    def __reduce__(self) -> Any:
        raise ModelError("BehindRows: cannot be pickled, because it holds a model; pickle the chain and bind it again")

    def set_cached(self, cached: CachedRows | None) -> None:
        """State which rows the cache of the generating model holds; None: ask the last forward."""
        self._cached = cached

    @over_whole_batch
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
        self.requests += 1
        self.requested_rows += len(numbers)
        part = self._part if self._part is not None and self._part.rows is rows else None
        cached = self._rows_in_cache(rows if part is None else part.whole, scores, part)
        if cached is None:
            return self(rows)[numbers]
        numbers = numbers if part is None else part.numbers[numbers]
        if cached.behind is not None:
            return cached.behind[numbers].to(rows.device)
        branch = copy.copy(cached.cache)
        branch.layers = [copy.copy(layer) for layer in branch.layers]
        if len(numbers) < len(branch.layers[0].keys):
            branch.batch_select_indices(numbers)
        chunk = self.ids.to(rows.device).expand(len(numbers), -1)
        return self._read(branch, chunk, cached.mask[numbers], cached.padded)

    def _read(self, branch: Any, chunk: Tensor, mask: Tensor, padded: bool) -> Tensor:
        """Return the logits after a text, ``[rows, tokens]``, behind a cache whose entries a mask describes."""
        extra: dict[str, Any] = dict(self._limits_logits)
        if padded:
            extra["attention_mask"] = torch.cat([mask, torch.ones_like(chunk)], dim=1)
        if self._takes_positions:
            extra["position_ids"] = mask.sum(-1, keepdim=True) + torch.arange(chunk.shape[1], device=chunk.device)
        model = _without_hooks(in_faster_order(self._forwarding, chunk.numel()))
        output = forwarded(model, input_ids=chunk, **with_cache(branch), **extra)
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -1].float().to(chunk.device)  # type: ignore[no-any-return]

    def _rows_in_cache(self, rows: Tensor, scores: Tensor, part: Part | None) -> CachedRows | None:
        """Return the rows as the generating model's cache holds them, or None where it cannot be branched exactly.

        Args:
            rows: the batch, ``[rows, length]``.
            scores: the scores of the step, of the batch or of the part.
            part: the part of the batch that is asked; None: the batch.
        """
        known = self._cached if self._cached is not None and self._cached.rows is rows else None
        cache = self._last.cache() if known is None and self._last.cache is not None else known and known.cache
        if type(cache) is not DynamicCache or self.prompts.in_encoder or self.prompts.inputs:
            return None
        layers: list[Any] = cache.layers
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            return None
        if not layers[0].is_initialized or rows.device != layers[0].keys.device:
            return None
        if not self.captured.reader.abilities.chunks:
            return None
        if known is not None:
            return known
        if len(layers[0].keys) != len(rows) or cache.get_seq_length() != rows.shape[1]:
            return None
        if not self.captured.computed(scores, None if part is None else part.numbers):
            return None
        return CachedRows(rows, cache, self._mask(rows), self.prompts.padded)

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
