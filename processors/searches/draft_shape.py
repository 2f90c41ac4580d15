"""The shape of a tree of drafts: a spine along a match of the text, and branches of likely transitions.

Source: GOOSE, arXiv:2604.02047; the constants are those of its code.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from logitkit.processors.engine.tree_node import Node
from logitkit.processors.searches.draft_sources import CANDIDATES, ContextMatcher, TransitionTable

MORE = 2 / 3  # share of the budget that a certain match adds
DEPTH = 6  # tokens of a branch
LEAST_SCORE = 0.01  # product of the probabilities of a branch
ON_SPINE = 0.5  # share of the branches that hang on the spine
CHAIN, LIKELY = 20, 0.6  # tokens by which likely transitions extend the spine, and their least probability
DECAY = 0.3  # weight of the last forward in the mean of accepted drafts

Grow = Callable[[Node, int], Node]
"""Returns the node of a draft after a node."""


class DraftShape:
    """Divides the nodes of a tree between its spine and its branches, and grows both.

    The spine gets more nodes where the match is reliable and where drafts were accepted lately.

    Args:
        budget: nodes of a tree without a match; a certain match adds two thirds.

    Attributes:
        accepted: decaying mean of the share of the spine that was accepted, 0 to 1.

    Example:
        >>> shape = DraftShape(60)
        >>> shape.nodes(0.5), shape.spine_nodes(0.5)  # the spine gets 0.5 + 0.5 * 0.5 of them
        (80, 60)
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.accepted = budget, 0.5

    def nodes(self, confidence: float) -> int:
        """Return the number of nodes of a tree, its root included."""
        return self.budget + int(confidence * MORE * self.budget)

    def spine_nodes(self, confidence: float) -> int:
        """Return the largest number of nodes of the spine."""
        base = 0.15 if self.accepted < 0.2 else 0.3 if self.accepted < 0.4 else 0.5
        return int(self.nodes(confidence) * (base + confidence * (1 - base)))

    def note(self, accepted: int, spine: int) -> None:
        """Note how many tokens of a spine were accepted."""
        if spine:
            self.accepted += DECAY * (accepted / spine - self.accepted)

    def drafts(
        self, root: Node, matcher: ContextMatcher, table: TransitionTable, grow: Grow, deepest: int
    ) -> tuple[list[Node], list[Node]]:
        """Return the spine and the branches behind a root, parents before children.

        Args:
            root: the node of the last token.
            matcher: the text up to the root.
            table: likely transitions.
            grow: adds a node.
            deepest: largest number of drafts behind one another.
        """
        match = matcher.match(self.nodes(1.0))
        confidence = match.confidence if match else 0.0
        room = min(deepest, self.spine_nodes(confidence), self.nodes(confidence) - 1)
        spine = self._spine(root, match.following if match else [], table, grow, room)
        free = self.nodes(confidence) - 1 - len(spine)
        branches: list[Node] = []
        shared = int(ON_SPINE * free) if spine else 0
        harmonic = sum(1 / place for place in range(1, len(spine) + 1))
        for place, node in enumerate(spine, 1):
            allowance = int(shared / (place * harmonic))
            branches += _branches(node, table, grow, allowance, min(DEPTH, deepest - place))
        branches += _branches(root, table, grow, free - len(branches), min(DEPTH, deepest))
        return spine, branches

    def _spine(self, root: Node, following: list[int], table: TransitionTable, grow: Grow, room: int) -> list[Node]:
        """Return the nodes along a match, and along likely transitions behind it."""
        node, spine = root, []
        for token in following[:room]:
            node = grow(node, token)
            spine.append(node)
        for _ in range(min(CHAIN, room - len(spine))):
            candidates = table.after(_before(node), node.token)
            if not candidates or candidates[0][1] <= LIKELY:
                break
            node = grow(node, candidates[0][0])
            spine.append(node)
        return spine


def _before(node: Node) -> int:
    """Return the token before a node; -1: there is none."""
    return -1 if node.parent is None else node.parent.token


def _branches(start: Node, table: TransitionTable, grow: Grow, allowance: int, depth: int) -> list[Node]:
    """Return likely transitions behind a node in the order of breadth, without those that it has.

    Args:
        start: the node.
        table: likely transitions.
        grow: adds a node.
        allowance: largest number of nodes.
        depth: largest number of nodes behind one another.
    """
    found: list[Node] = []
    waiting = deque([(start, 1.0, 1)])
    while waiting and len(found) < allowance:
        node, score, level = waiting.popleft()
        if level > depth:
            break
        width = min(max(1, math.ceil((allowance - len(found)) * score)), max(1, CANDIDATES // level))
        for token, probability in table.after(_before(node), node.token)[:width]:
            if score * probability < LEAST_SCORE or len(found) == allowance:
                break
            if token not in node.children:
                child = grow(node, token)
                found.append(child)
                waiting.append((child, score * probability, level + 1))
    return found
