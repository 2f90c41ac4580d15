"""A tree of drafts behind the tokens of one row, in one KV cache: read in one forward, then cut down to one path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.engine.kv_tree import CHUNK, KVTree
from logitkit.processors.engine.tree_node import Node


class DraftTree(KVTree):
    """A row of tokens and, for one forward at a time, drafts of its next tokens.

    Args:
        model, exact: as for `KVTree`.

    Attributes:
        end: the last node of the row.

    Raises:
        ModelError: as for `KVTree`.

    Example:
        >>> from logitkit.registry.laws import tiny_model
        >>> tree = DraftTree(tiny_model())
        >>> row = tree.start([1, 2, 3], lambda nodes, logits: None)
        >>> three = tree.draft(row, 3)
        >>> four = tree.draft(three, 4)
        >>> logits = tree.feed([three, four, tree.draft(three, 5)])
        >>> tree.keep_path([three, four])  # 5 is dropped
        >>> tree.end.tokens(), tree.forwards, logits.shape
        ([1, 2, 3, 4], 2, torch.Size([3, 272]))
    """

    def __init__(self, model: Any, *, exact: bool = False) -> None:
        super().__init__(model, exact=exact, fixed=False)  # the cache is cut after every forward

    def release(self) -> None:
        """Drop the cache and all nodes."""
        super().release()
        self.end = self.root

    def start(self, tokens: Sequence[int], seen: Any) -> Node:
        """Read all tokens of a row but the last one, in chunks, and return the node before the last token.

        Args:
            tokens: the row, at least one token.
            seen: called with the nodes of each chunk and the logits after them, fp32 ``[nodes, vocab]``.

        Raises:
            ModelError: a row longer than the context of the model.
        """
        self.release()
        for first in range(0, len(tokens) - 1, CHUNK):
            chunk: list[Node] = []
            for token in tokens[first : min(first + CHUNK, len(tokens) - 1)]:
                chunk.append(self.draft(chunk[-1] if chunk else self.end, token))
            seen(chunk, self.feed(chunk))
            self.keep_path(chunk)
        return self.end

    def draft(self, parent: Node, token: int) -> Node:
        """Return the node of a token after a node that is not read yet; see `feed`.

        Raises:
            ModelError: the row would be longer than the context of the model.
        """
        return self._child(parent, token)

    def room(self) -> int | None:
        """Return how many tokens may follow the row within the context of the model; None: any number."""
        return self._limit - self.end.depth - 1 if self._limit else None

    @torch.no_grad()
    def feed(self, nodes: list[Node]) -> Tensor:
        """Read new nodes in one forward, and return the logits after each, fp32 ``[nodes, vocab]``.

        Args:
            nodes: parents before children; the parent of the first is the end of the row.
        """
        try:
            logits = self._reader(self.model, self._slots, nodes, every=True)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        self.forwards, self.tokens_fed = self.forwards + 1, self.tokens_fed + len(nodes)
        for node in nodes:
            node.slot = len(self._slots)
            self._slots.append(node)
        return logits

    def keep_path(self, path: Sequence[Node]) -> None:
        """Make nodes that the last `feed` read part of the row, and drop the other nodes of that `feed`.

        Args:
            path: the nodes in order, the first behind the end of the row; at least one.
        """
        base, slots = path[0].slot, [node.slot for node in path]
        first, count = base, len(path)
        dropped = len(self._slots) - first - count
        if slots != list(range(first, first + count)):
            index = torch.tensor(slots, device=self.model.device)
            layers: list[Any] = self._reader.cache.layers
            for layer in layers:
                for states in (layer.keys, layer.values):
                    states[:, :, first : first + count] = states[:, :, index]
        if dropped:
            self._reader.cache.crop(-dropped)
        self._slots = [*self._slots[:first], *path]
        for slot, node in enumerate(path, first):
            node.slot, node.children = slot, {}
        self.end.children.clear()
        self.end = path[-1]
