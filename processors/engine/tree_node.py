"""The nodes of a tree of token sequences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False)
class Node:
    """A token after the tokens of its parent.

    Attributes:
        token: token id.
        parent: the node before; None for the root.
        depth: number of tokens before this one.
        total: log-probability of the path in nats, without its conditioning tokens.
        logp: log-probabilities of the next token in nats, float32, ``[vocab]``; None: not computed.
        slot: place of the token in the cache; -1: not read.
        children: the nodes after this one, by token id.
    """

    token: int
    parent: Node | None
    depth: int
    total: float = 0.0
    logp: NDArray[np.float32] | None = None
    slot: int = -1
    children: dict[int, Node] = field(default_factory=dict)

    def path(self) -> list[Node]:
        """Return the nodes from the first token to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.depth >= 0:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def tokens(self) -> list[int]:
        """Return the token ids of the path."""
        return [node.token for node in self.path()]


def with_ancestors(group: Iterable[Node], known: set[int]) -> set[int]:
    """Return the object ids of nodes and their ancestors, without the root and the known ids."""
    ids: set[int] = set()
    for node in group:
        step: Node | None = node
        while step is not None and step.depth >= 0 and id(step) not in known and id(step) not in ids:
            ids.add(id(step))
            step = step.parent
    return ids
