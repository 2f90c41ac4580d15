"""Development and held-out split of the items of a task, by a hash of the item's identifier and a seed.

An item belongs to one split for ever: items that are added later move no other item. Tasks over the same data, such as
the same passages cut in two ways, split them alike, because neither the task nor its parameters are part of the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from logitkit.bench.config.run import Split, TaskEntry


class Identified(Protocol):
    """An item with an identifier."""

    @property
    def id(self) -> str:
        """Identifier of the item in its data."""


Item = TypeVar("Item", bound=Identified)


def split_of(identifier: str, *, seed: int, share: float) -> Split:
    """Return the split to which an item belongs.

    Args:
        identifier: of the item.
        seed: seed of the split; another seed splits the items in another way.
        share: share of the items that are in the development split, on average.

    Examples:
        >>> split_of("2", seed=0, share=0.5), split_of("3", seed=0, share=0.5)
        ('held_out', 'development')
    """
    hashed = hashlib.sha256(f"{seed}:{identifier}".encode()).digest()
    return "development" if int.from_bytes(hashed[:8], "big") < share * 2**64 else "held_out"


def items_of(entry: TaskEntry, items: Sequence[Item]) -> list[Item]:
    """Return the items of a task's split, all of them without a split; ``samples`` is not applied.

    Examples:
        >>> from logitkit.bench.tasks.task import Sample
        >>> items = [Sample(id=str(number), data={}) for number in range(1, 5)]
        >>> [item.id for item in items_of(TaskEntry(task="arc", split="held_out"), items)]
        ['1', '2']
    """
    if entry.split is None:
        return list(items)
    seed, share = entry.split_seed, entry.development_share
    return [item for item in items if split_of(item.id, seed=seed, share=share) == entry.split]
