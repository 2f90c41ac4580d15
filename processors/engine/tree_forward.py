"""Forwards of the new tokens of a tree behind its cache, in shapes as they come or in a few fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.engine.fixed_shapes import COUNTS, FixedShapes, Masks, uses_fixed_shapes
from logitkit.processors.engine.growing_cache import GrowingLayer, growing_cache
from logitkit.processors.engine.thin_matmul import in_faster_order
from logitkit.processors.engine.tree_attention import additive_mask, ancestor_matrix, within_window
from logitkit.processors.engine.tree_node import Node
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import with_cache

CPU = torch.device("cpu")


class TreeForward:
    """The forward of a model over new nodes of a tree, and the cache of the nodes before.

    Args:
        model: a causal language model that accepts an attention mask with four dimensions.
        fixed: whether a few tokens are read in fixed shapes; None: where the model is faster in them.

    Attributes:
        cache: keys and values of the nodes that were read, in the order of their slots.
    """

    def __init__(self, model: Any, *, fixed: bool | None = None) -> None:
        config = text_config(model)
        self.cache = growing_cache()
        self._layer_types = list(getattr(config, "layer_types", None) or [])
        self._window = getattr(config, "sliding_window", None)
        if self._layer_types and "sliding_attention" not in self._layer_types:
            self._window = None
        self._is_fixed = fixed
        self._fixed: FixedShapes | None = None

    def release(self) -> None:
        """Drop the cache, and what was recorded for its memory."""
        self.cache, self._fixed = growing_cache(), None

    def __call__(self, model: Any, cached: Sequence[Node], fresh: Sequence[Node], *, every: bool) -> Tensor:
        """Return fp32 logits after each new node, ``[nodes, vocab]``; unless ``every``, after the last node alone.

        Args:
            model: the model.
            cached: the nodes in the cache, by slot.
            fresh: the new nodes, parents before children.
            every: whether the logits after all nodes are needed.
        """
        if not cached:  # the model may have been moved or compiled since the last cache
            is_fixed = uses_fixed_shapes(model) if self._is_fixed is None else self._is_fixed
            self._fixed = FixedShapes(model) if is_fixed else None
        ids, positions = [node.token for node in fresh], [node.depth for node in fresh]
        if self._fixed is not None and len(fresh) <= COUNTS[-1] and self._has_growing_states():
            logits = self._fixed.forward(
                self.cache.layers, ids, positions, self._masks(cached, fresh, model.dtype, CPU)
            )
            return logits if every else logits[-1:]
        device = model.device
        output = in_faster_order(model, len(fresh))(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=self._masks(cached, fresh, model.dtype, device),
            position_ids=torch.tensor([positions], device=device),
            **with_cache(self.cache),
            logits_to_keep=0 if every else 1,
        )
        return output.logits[0].float()  # type: ignore[no-any-return]

    def _masks(self, cached: Sequence[Node], fresh: Sequence[Node], dtype: torch.dtype, device: torch.device) -> Masks:
        """Return the additive masks of the new nodes, ``[1, 1, new nodes, all nodes]``, as the model takes them."""
        ancestors = ancestor_matrix(cached, fresh)
        mask = additive_mask(ancestors, dtype, device)
        if not self._window:
            return mask
        depths = np.array([node.depth for node in (*cached, *fresh)])
        near = additive_mask(ancestors & within_window(depths, len(fresh), self._window), dtype, device)
        return {"full_attention": mask, "sliding_attention": near} if self._layer_types else near

    def _has_growing_states(self) -> bool:
        """Return whether every layer of the cache has states and memory in which more can be written."""
        layers = self.cache.layers
        return bool(layers) and all(isinstance(each, GrowingLayer) and each.is_initialized for each in layers)
