"""A tree of token sequences with common prefixes, in one KV cache.

All sequences share one row of the cache. A mask lets each token attend to its ancestors only, and positions count along
its path. One forward therefore reads any number of continuations, a fork has no cost, and a common prefix is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.engine.cache_memory import cache_bytes
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.processors.engine.tree_check import check_tree
from logitkit.processors.engine.tree_forward import TreeForward
from logitkit.processors.engine.tree_node import Node, with_ancestors
from logitkit.processors.model_facts import context_length

CHUNK = 256  # tokens of a long sequence that one forward reads
ROOM = 2048  # tokens that may stay in the cache for groups other than the first
SLACK = 256  # dropped tokens that may stay in the cache before the cache is compacted


class KVTree:
    """A tree of token sequences under one model.

    Args:
        model: a causal language model that accepts an attention mask with four dimensions.
        exact: the model is known to read trees exactly; else its first tree runs `check_tree`.
        fixed: whether a few new tokens are read in a few fixed shapes, padded; None: where the model is compiled, or
            on a GPU, where such forwards are recorded as CUDA graphs.

    Attributes:
        forwards: forward passes so far.
        tokens_fed: tokens fed so far.
        root: the empty sequence; it has no next-token probabilities.

    Raises:
        ModelError: an encoder-decoder or a recurrent model, a model that fails on a tree, or one that gives a path of
            a tree other logits than the path alone.

    Example:
        >>> from logitkit.registry.laws import tiny_model
        >>> tree = KVTree(tiny_model())
        >>> prompt = tree.read(tree.root, [1, 2, 3], conditioning=True)
        >>> first, second = tree.grow([(prompt, [4, 5]), (prompt, [4, 6])])
        >>> first.tokens(), tree.forwards, tree.tokens_fed  # one forward reads 4, 5 and 6
        ([1, 2, 3, 4, 5], 2, 6)
    """

    def __init__(self, model: Any, *, exact: bool = False, fixed: bool | None = None) -> None:
        if not exact:
            check_tree(model, type(self))
        self.model, self._reader = model, TreeForward(model, fixed=fixed)
        self.forwards = self.tokens_fed = 0
        self.root = Node(token=-1, parent=None, depth=-1)
        self._limit = context_length(model) or 0
        self.release()

    def release(self) -> None:
        """Drop the cache and all nodes; nodes returned earlier must not be used again."""
        self._reader.release()
        self._slots: list[Node] = []  # the node in each slot of the cache
        self._unchecked = SLACK  # number of slots up to which nothing can be worth dropping
        self.root.children.clear()

    def __len__(self) -> int:
        """Return the number of nodes in the cache."""
        return len(self._slots)

    def read(self, start: Node, tokens: Sequence[int], *, conditioning: bool = False) -> Node:
        """Follow a sequence from a node and read the tokens that the tree does not hold, in chunks.

        Args:
            start: the node before the sequence.
            tokens: the sequence.
            conditioning: whether the log-probabilities of these tokens are left out of ``total``.

        Returns:
            The last node of the sequence, with its ``logp``.

        Raises:
            ModelError: a sequence longer than the context of the model.
        """
        node, place = start, 0
        while place < len(tokens) and tokens[place] in node.children:
            node, place = node.children[tokens[place]], place + 1
        if node.logp is None and node.depth >= 0 and (place == len(tokens) or not conditioning):
            self._read_again(node)
        while place < len(tokens):
            chunk = tokens[place : place + CHUNK]
            fresh = []
            for token in chunk:
                node = self._child(node, token)
                fresh.append(node)
            self._forward(fresh, scored=not conditioning)
            place += len(chunk)
        return node

    def grow(self, wanted: Iterable[tuple[Node, Sequence[int]]]) -> list[Node]:
        """Follow sequences from nodes and read all tokens that the tree does not hold, in one forward.

        Args:
            wanted: ``(node, sequence after the node)`` pairs.

        Returns:
            The last node of each sequence, with its ``logp``.

        Raises:
            ModelError: a sequence longer than the context of the model.
        """
        ends, fresh, new = [], [], set()
        for start, tokens in wanted:
            node = start
            for token in tokens:
                if token not in node.children:
                    if node.logp is None and node.depth >= 0 and id(node) not in new:
                        self._read_again(node)
                    fresh.append(self._child(node, token))
                    new.add(id(fresh[-1]))
                node = node.children[token]
            ends.append(node)
        if fresh:
            self._forward(fresh, scored=True, keep=True)
        for node in ends:
            if node.logp is None:
                self._read_again(node)
        return ends

    def can_grow(self, node: Node, token: int) -> bool:
        """Return whether a token after a node is not read yet, and within the context of the model."""
        return token not in node.children and not (self._limit and node.depth + 1 >= self._limit)

    @property
    def cache_bytes(self) -> int:
        """Bytes that the keys and values of the nodes hold, with the room for more; see `cache_bytes`."""
        return cache_bytes(self._reader.cache)

    @property
    def has_room(self) -> bool:
        """Whether `keep` would keep all groups: every node fits, and few nodes were read since the last `keep`."""
        return len(self._slots) <= min(ROOM, self._unchecked)

    def keep(self, groups: Iterable[Iterable[Node]]) -> int:
        """Drop all nodes except groups of nodes and their ancestors; compact the cache when enough nodes are dropped.

        Every forward attends to the whole cache, so its size costs time. The first group is kept, and later
        groups while all fit into `ROOM`, or into twice the size of the first group.

        Args:
            groups: the most important group first.

        Returns:
            Number of groups that are kept.
        """
        alive: set[int] = set()
        room, count = ROOM, 0
        for group in groups:
            new = with_ancestors(group, alive)
            if count and len(alive) + len(new) > room:
                break
            alive |= new
            room, count = max(room, 2 * len(alive)) if not count else room, count + 1
        if len(self._slots) - len(alive) > max(SLACK, len(alive) // 2):
            self._compact(alive)
        self._unchecked = max(SLACK, len(self._slots) + SLACK // 4)
        return count

    def _compact(self, alive: set[int]) -> None:
        """Keep only the nodes with these object ids, in the cache and in the tree."""
        kept = [node for node in self._slots if id(node) in alive]
        index = torch.tensor([node.slot for node in kept], dtype=torch.long, device=self.model.device)
        layers: list[Any] = self._reader.cache.layers
        for layer in layers:
            layer.select(index)
        for node in [self.root, *kept]:
            node.children = {token: child for token, child in node.children.items() if id(child) in alive}
        for slot, node in enumerate(kept):
            node.slot = slot
        self._slots = kept

    def _child(self, parent: Node, token: int) -> Node:
        """Add a node; its ``total`` is complete when the parent has its ``logp``."""
        node = Node(token=int(token), parent=parent, depth=parent.depth + 1, total=parent.total)
        if parent.logp is not None:
            node.total += float(parent.logp[token])
        if self._limit and node.depth >= self._limit:
            raise ModelError(
                f"KVTree: a text must have at most {self._limit} tokens, the context of "
                f"{type(self.model).__name__}; shorten the text"
            )
        parent.children[node.token] = node
        return node

    def _read_again(self, node: Node) -> None:
        """Read the token of a node again to compute its ``logp``, and drop the copy from the cache."""
        copy = Node(token=node.token, parent=node.parent, depth=node.depth, total=node.total)
        self._forward([copy], scored=False)
        node.logp = copy.logp
        self._slots.pop()
        self._reader.cache.crop(-1)

    @torch.no_grad()
    def _forward(self, fresh: list[Node], *, scored: bool, keep: bool = False) -> None:
        """Read new nodes.

        Args:
            fresh: the nodes, parents before children.
            scored: whether nodes with a new parent get their ``total`` from the logits of that parent.
            keep: whether all nodes get their ``logp``, or the last one alone.
        """
        try:
            logits = self._reader(self.model, self._slots, fresh, every=keep or scored)
            self.forwards += 1
            self.tokens_fed += len(fresh)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        for node in fresh:
            node.slot = len(self._slots)
            self._slots.append(node)
        if not (keep or scored):
            fresh[-1].logp = with_infinite_masks(logits[-1]).log_softmax(-1).cpu().numpy()
            return
        logp = with_infinite_masks(logits).log_softmax(-1)
        if scored:
            _add_totals(fresh, logp)
        if keep:
            for node, row in zip(fresh, logp.cpu().numpy(), strict=True):
                node.logp = row
        else:
            fresh[-1].logp = logp[-1].cpu().numpy()


def _add_totals(fresh: Sequence[Node], logp: Tensor) -> None:
    """Set the ``total`` of nodes with new parents, from the log-probabilities after each node, ``[nodes, vocab]``."""
    place = {id(node): number for number, node in enumerate(fresh)}
    inner = [(place[id(node.parent)], node) for node in fresh if id(node.parent) in place]
    if not inner:
        return
    rows = torch.tensor([number for number, _ in inner], device=logp.device)
    columns = torch.tensor([node.token for _, node in inner], device=logp.device)
    for (_, node), value in zip(inner, logp[rows, columns].tolist(), strict=True):
        if node.parent is not None:
            node.total = node.parent.total + value
