"""Token sequences that share their beginnings, read by one model into one cache.

All sequences lie side by side in one row of the cache; a mask lets each token see its own ancestors only, and
positions count along its path. So any number of continuations is one forward, a fork costs nothing, and what
is shared is read once. Nodes are found by their tokens: the answer is a function of the tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from logitkit.errors import ModelError
from logitkit.processors.model_facts import context_length, text_config

CHUNK = 256  # tokens of a long sequence that are read in one forward
ROOM = 2048  # tokens that may stay in the cache beside what is needed now
SLACK = 256  # dropped tokens that may stay in the cache before it is packed


@dataclass(eq=False)
class Node:
    """A token after the tokens of its parent.

    Attributes:
        depth: tokens before it.
        total: log-probability of its path in nats; what was given at the root counts nothing.
        logp: log-probabilities of the next token in nats, float32 ``[vocab]``; None where nobody asked.
    """

    token: int
    parent: Node | None
    depth: int
    total: float = 0.0
    logp: NDArray[np.float32] | None = None
    slot: int = -1
    children: dict[int, Node] = field(default_factory=dict)

    def path(self) -> list[Node]:
        """From the first token to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.depth >= 0:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def tokens(self) -> list[int]:
        """Tokens of its path."""
        return [node.token for node in self.path()]


class KVTree:
    """A tree of token sequences under one model.

    Args:
        model: a causal language model whose attention takes a mask of its own.

    Attributes:
        forwards: forward passes made.
        fed: tokens fed.
        root: the empty sequence; it has no probabilities of its own.

    Raises:
        ModelError: an encoder-decoder or a recurrent model.
    """

    def __init__(self, model: Any) -> None:
        config = text_config(model)
        if model.config.is_encoder_decoder or any(DynamicCache(config=config).is_linear):
            raise ModelError(
                f"KVTree: model must be causal with attention in all layers, got {type(model).__name__}; "
                "it reads a tree in one row"
            )
        self.model = model
        self.forwards = self.tokens_fed = 0
        self.root = Node(token=-1, parent=None, depth=-1)
        self._kinds = list(getattr(config, "layer_types", None) or [])
        self._window = getattr(config, "sliding_window", None)
        if self._kinds and "sliding_attention" not in self._kinds:
            self._window = None
        self._limit = context_length(model) or 0
        self.release()

    def release(self) -> None:
        """Forget everything; nodes of before are of no use any more."""
        self._cache = DynamicCache()
        self._slots: list[Node] = []  # who lies where in the cache
        self.root.children.clear()

    def read(self, start: Node, tokens: Sequence[int], *, conditioning: bool = False) -> Node:
        """Follow a sequence from a node, reading what is not known; return its end, whose ``logp`` is known.

        Args:
            start: where it begins.
            tokens: the sequence.
            conditioning: the log-probabilities of these tokens do not count in ``total``.
        """
        node, place = start, 0
        while place < len(tokens) and tokens[place] in node.children:
            node, place = node.children[tokens[place]], place + 1
        if node.logp is None and node.depth >= 0 and (place == len(tokens) or not conditioning):
            self._ask_again(node)
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
        """Continue nodes by sequences, all in one forward; return their ends, whose ``logp`` are known."""
        ends, fresh, new = [], [], set()
        for start, tokens in wanted:
            node = start
            for token in tokens:
                if token not in node.children:
                    if node.logp is None and node.depth >= 0 and id(node) not in new:
                        self._ask_again(node)
                    fresh.append(self._child(node, token))
                    new.add(id(fresh[-1]))
                node = node.children[token]
            ends.append(node)
        if fresh:
            self._forward(fresh, scored=True, keep=True)
        for node in ends:
            if node.logp is None:
                self._ask_again(node)
        return ends

    def keep(self, groups: Iterable[Iterable[Node]]) -> int:
        """Forget everything but groups of nodes and what leads to them; the cache is packed when that is worth it.

        Every forward looks at the whole cache, so what it holds costs time: the first group is kept, and those behind
        it as long as all fit into `ROOM`, or into twice what the first one needs.

        Args:
            groups: the most needed first.

        Returns:
            How many groups are kept.
        """
        alive: set[int] = set()
        room, count = ROOM, 0
        for group in groups:
            new = set()
            for node in group:
                step: Node | None = node
                while step is not None and step.depth >= 0 and id(step) not in alive and id(step) not in new:
                    new.add(id(step))
                    step = step.parent
            if count and len(alive) + len(new) > room:
                break
            alive |= new
            room, count = max(room, 2 * len(alive)) if not count else room, count + 1
        if len(self._slots) - len(alive) <= max(SLACK, len(alive) // 2):
            return count
        kept = [node for node in self._slots if id(node) in alive]
        index = torch.tensor([node.slot for node in kept], dtype=torch.long, device=self.model.device)
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys[:, :, index], layer.values[:, :, index]
        for node in [self.root, *kept]:
            node.children = {token: child for token, child in node.children.items() if id(child) in alive}
        for slot, node in enumerate(kept):
            node.slot = slot
        self._slots = kept
        return count

    def _child(self, parent: Node, token: int) -> Node:
        """A new node; its probability is known when its parent's are."""
        node = Node(token=int(token), parent=parent, depth=parent.depth + 1, total=parent.total)
        if parent.logp is not None:
            node.total += float(parent.logp[token])
        if self._limit and node.depth >= self._limit:
            raise ModelError(
                f"KVTree: a text must have at most {self._limit} tokens, the context of "
                f"{type(self.model).__name__}; shorten it"
            )
        parent.children[node.token] = node
        return node

    def _ask_again(self, node: Node) -> None:
        """Read a node's token once more, for the probabilities that were not kept; the copy is dropped at once."""
        twin = Node(token=node.token, parent=node.parent, depth=node.depth, total=node.total)
        self._forward([twin], scored=False)
        node.logp = twin.logp
        self._slots.pop()
        self._cache.crop(-1)

    @torch.no_grad()
    def _forward(self, fresh: list[Node], *, scored: bool, keep: bool = False) -> None:
        """Read new nodes, parents before children.

        Args:
            fresh: the nodes; with ``keep`` all get their ``logp``, else the last one.
            scored: a node whose parent is new too gets its probability from it.
        """
        try:
            logits = self._run(fresh, every=keep or scored)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        for node in fresh:
            node.slot = len(self._slots)
            self._slots.append(node)
        if not (keep or scored):
            fresh[-1].logp = logits[-1].log_softmax(-1).cpu().numpy()
            return
        order = {id(node): place for place, node in enumerate(fresh)}
        logp = logits.log_softmax(-1)
        inner = [(order[id(node.parent)], node) for node in fresh if id(node.parent) in order]
        if inner:
            rows = torch.tensor([place for place, _ in inner], device=logp.device)
            columns = torch.tensor([node.token for _, node in inner], device=logp.device)
            for (_, node), value in zip(inner, logp[rows, columns].tolist(), strict=True):
                if scored and node.parent is not None:
                    node.total = node.parent.total + value
        if keep:
            for node, row in zip(fresh, logp.cpu().numpy(), strict=True):
                node.logp = row
        else:
            fresh[-1].logp = logp[-1].cpu().numpy()

    def _run(self, fresh: list[Node], *, every: bool) -> Tensor:
        """Logits after new nodes, fp32 ``[nodes, vocab]``, or of the last one."""
        device, count, before = self.model.device, len(fresh), len(self._slots)
        place = {id(node): before + number for number, node in enumerate(fresh)}
        sees = np.zeros((count, before + count), dtype=bool)
        depth = np.array([node.depth for node in (*self._slots, *fresh)])
        for number, node in enumerate(fresh):
            parent = node.parent
            if parent is not None and id(parent) in place:
                sees[number] = sees[place[id(parent)] - before]
            elif parent is not None:
                sees[number, [step.slot for step in parent.path()]] = True
            sees[number, before + number] = True
        masks = {"full_attention": sees}
        if self._window:
            near = depth[before:, None] - depth[None] < self._window
            masks["sliding_attention"] = sees & near
        dtype = self.model.dtype
        shut = torch.finfo(dtype).min
        made = {
            name: torch.zeros(mask.shape, dtype=dtype).masked_fill(torch.from_numpy(~mask), shut)[None, None].to(device)
            for name, mask in masks.items()
        }
        mask: Any = made if self._kinds and self._window else made.get("sliding_attention", made["full_attention"])
        output = self.model(
            input_ids=torch.tensor([[node.token for node in fresh]], device=device),
            attention_mask=mask,
            position_ids=torch.tensor(depth[None, before:], device=device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=0 if every else 1,
        )
        self.forwards += 1
        self.tokens_fed += count
        return output.logits[0].float()  # type: ignore[no-any-return]
