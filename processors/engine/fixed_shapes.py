"""Forwards of a few tokens in a few fixed shapes, so that they can be compiled or recorded as a CUDA graph.

A forward of a few tokens takes a GPU less time than the host needs to start its kernels. With shapes that repeat, CUDA
records all kernels of a forward once and starts them together, and a compiled forward is compiled once for each shape.
The number of new tokens is padded to one of `COUNTS`, the length of the cache to a power of two. The states of a
padding token lie behind those of the tokens, where the next forward replaces them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from logitkit.processors.engine.growing_cache import GrowingLayer
from logitkit.processors.engine.model_forward import is_compiled
from logitkit.processors.transformers_api import with_cache

COUNTS = (1, 2, 4, 8, 16, 32)  # numbers of new tokens of a forward; more are read in a shape of their own
SHORTEST = 256  # smallest length of the cache

Masks = Tensor | Mapping[str, Tensor]


class FixedLayer(DynamicLayer):
    """A cache layer whose tensors never change their shape or their memory; new states are written at given slots.

    Args:
        keys, values: the states, ``[1, heads, length, width]``; written in place.
        slots: places of the new states, ``[new]``; its contents change from forward to forward.

    >>> slots = torch.tensor([1])
    >>> layer = FixedLayer(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), slots)
    >>> keys, _ = layer.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    >>> keys.flatten().tolist(), layer.get_seq_length()
    ([0.0, 1.0, 0.0], 3)
    """

    def __init__(self, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.slots = keys, values, slots
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write states, ``[1, heads, new, width]``, and return all states, written or not."""
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, self.slots, key_states)
        self.values.index_copy_(2, self.slots, value_states)
        return self.keys, self.values


@dataclass(eq=False)
class _Shape:
    """The inputs of all forwards of one shape; their memory stays the same.

    Attributes:
        ids, positions: ``[1, count]``.
        masks: additive, ``[1, 1, count, length]``, as the model takes them.
        slots: places of the new states, ``[count]``.
        cache: layers of the length.
        has_run: whether a forward of the shape has run.
        recorded: the recorded forward and the logits that it writes; None before the second forward.
    """

    ids: Tensor
    positions: Tensor
    masks: Masks
    slots: Tensor
    cache: DynamicCache
    has_run: bool = False
    recorded: tuple[Any, Tensor] | None = None


class FixedShapes:
    """Reads new tokens of a tree in fixed shapes.

    Args:
        model: a causal language model.

    Attributes:
        records: whether forwards are recorded as CUDA graphs; a forward that cannot be recorded turns this off.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.records = may_record(model)
        self.release()
        self._hooks = [hooks for part in model.modules() for hooks in (part._forward_hooks, part._forward_pre_hooks)]

    def release(self) -> None:
        """Drop the inputs of all shapes, and what was recorded."""
        self._shapes: dict[tuple[int, int, bool], _Shape] = {}
        self._rooms: list[tuple[Tensor, Tensor]] = []  # the memory of the layers for which the shapes were made
        self._pool: Any = None

    def forward(self, layers: Sequence[Any], ids: Sequence[int], positions: Any, masks: Masks) -> Tensor:
        """Return fp32 logits after new tokens, ``[tokens, vocab]``; their states are appended to the layers.

        Args:
            layers: those of the cache, with states.
            ids: the new tokens, at most as many as the last of `COUNTS`.
            positions: their positions, as many.
            masks: additive masks on the CPU, ``[1, 1, tokens, cached and new]``, for all layers or by their type.
        """
        new, cached = len(ids), layers[0].get_seq_length()
        shape = self._shape(layers, new, cached, masks)
        padding = [0] * (len(shape.slots) - new)
        shape.ids.copy_(torch.tensor([[*ids, *padding]]))
        shape.positions.copy_(torch.tensor([[*positions, *padding]]))
        shape.slots.copy_(torch.arange(cached, cached + len(shape.slots)))
        for target, mask in zip(_tensors(shape.masks), _tensors(masks), strict=True):
            target.copy_(_padded(mask, target.shape))
        logits = self._logits(shape)[:new].clone()  # a record writes into the same memory again
        for layer in layers:
            layer.show(cached + new)
        return logits

    def _shape(self, layers: Sequence[GrowingLayer], new: int, cached: int, masks: Masks) -> _Shape:
        """Return the inputs for new tokens behind the cached ones; the layers get room for them."""
        count = next(each for each in COUNTS if each >= new)
        length = max(SHORTEST, 1 << (cached + count - 1).bit_length())
        self._reserve(layers, length)
        # A tensor of the inference mode cannot be written outside of it.
        key = count, length, torch.is_inference_mode_enabled()
        if key not in self._shapes:
            device = self.model.device
            slots = torch.zeros(count, dtype=torch.long, device=device)
            cache = DynamicCache()
            cache.layers = [
                FixedLayer(keys[:, :, :length], values[:, :, :length], slots) for keys, values in self._rooms
            ]
            self._shapes[key] = _Shape(
                ids=torch.zeros(1, count, dtype=torch.long, device=device),
                positions=torch.zeros(1, count, dtype=torch.long, device=device),
                masks=_empty_masks(masks, (1, 1, count, length), device),
                slots=slots,
                cache=cache,
            )
        return self._shapes[key]

    def _reserve(self, layers: Sequence[GrowingLayer], length: int) -> None:
        """Give the layers room for ``length`` states; forget all shapes where that takes other memory."""
        first = self._rooms[0][0] if self._rooms else None
        if first is not None and first.shape[-2] >= length and layers[0].is_in(first):
            return  # the memory of all layers changes together
        rooms = [layer.reserve(length) for layer in layers]
        self.release()
        self._rooms = rooms

    def _logits(self, shape: _Shape) -> Tensor:
        """Run the model on the inputs of a shape; its second forward is recorded, and later ones repeat the record.

        The first forward runs as it is: libraries choose their kernels in it, and many shapes occur only once.
        """
        if not self.records or not shape.has_run or self._is_special():
            shape.has_run = True
            return self._run(shape)
        if shape.recorded is None:
            shape.recorded = self._recorded(shape)
        if shape.recorded is None:
            return self._run(shape)
        graph, logits = shape.recorded
        graph.replay()
        return logits

    def _is_special(self) -> bool:
        """Return whether a record would differ from a forward: hooks, dropout, or another precision."""
        return any(self._hooks) or self.model.training or torch.is_autocast_enabled()

    def _recorded(self, shape: _Shape) -> tuple[Any, Tensor] | None:
        """Record a forward, which runs nothing; None, and a warning, where it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self.model.device), torch.cuda.graph(graph, pool=self._pool):
                logits = self._run(shape)
        except RuntimeError as error:
            self.records = False
            reason = f"{type(error).__name__}: {str(error).split(chr(10))[0]}"
            warnings.warn(
                f"logitkit: the forward of {type(self.model).__name__} should be one that CUDA can record, got "
                f"{reason}; it runs unrecorded, and texts are read more slowly",
                stacklevel=2,
            )
            return None
        self._pool = graph.pool()
        return graph, logits

    def _run(self, shape: _Shape) -> Tensor:
        """Run the model."""
        output = self.model(
            input_ids=shape.ids,
            attention_mask=dict(shape.masks) if isinstance(shape.masks, Mapping) else shape.masks,
            position_ids=shape.positions,
            **with_cache(shape.cache),
            logits_to_keep=0,
        )
        return output.logits[0].float()  # type: ignore[no-any-return]


def may_record(model: Any) -> bool:
    """Return whether forwards of a model may be recorded as CUDA graphs.

    The model must be on one GPU, and be one that transformers itself compiles as a whole: other forwards ask the
    device for numbers, which no record can repeat.

    >>> from logitkit.registry.laws import tiny_model
    >>> may_record(tiny_model())
    False
    """
    return (
        model.device.type == "cuda"
        and bool(getattr(model, "_can_compile_fullgraph", False))
        and not is_compiled(model)
        and len({weight.device for weight in model.parameters()}) == 1
        and not any(hasattr(part, "_hf_hook") for part in model.modules())
    )


def uses_fixed_shapes(model: Any) -> bool:
    """Return whether forwards in fixed shapes are faster: those that are recorded or compiled.

    >>> from logitkit.registry.laws import tiny_model
    >>> uses_fixed_shapes(tiny_model())
    False
    """
    return is_compiled(model) or may_record(model)


def _tensors(masks: Masks) -> list[Tensor]:
    """Return the masks as a list."""
    return [masks] if isinstance(masks, Tensor) else list(masks.values())


def _empty_masks(masks: Masks, shape: tuple[int, ...], device: torch.device) -> Masks:
    """Return tensors of a shape in place of masks."""
    if isinstance(masks, Tensor):
        return torch.zeros(shape, dtype=masks.dtype, device=device)
    return {name: torch.zeros(shape, dtype=mask.dtype, device=device) for name, mask in masks.items()}


def _padded(mask: Tensor, shape: torch.Size) -> Tensor:
    """Return a mask for more queries and keys: a padding token attends to itself alone, and nothing attends to it."""
    new, total = mask.shape[-2:]
    padded = mask.new_full(shape, torch.finfo(mask.dtype).min)
    padded[..., :new, :total] = mask
    padding = torch.arange(new, shape[-2])
    padded[..., padding, total - new + padding] = 0.0
    return padded
