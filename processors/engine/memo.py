"""The last answer to a question about tensors, recalled without reading what they hold.

Several parts of a chain ask the same thing about the same rows at a step. Comparing tokens makes the host
wait for the device; comparing objects does not.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import Tensor

Answer = TypeVar("Answer")


class Memo(Generic[Answer]):
    """One remembered answer, good while asked about the same tensor objects, unwritten since."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Tensor, ...], tuple[int, ...], Answer] | None = None

    def get(self, *asked: Tensor) -> Answer | None:
        """The answer remembered for these tensors, or None."""
        if self._kept is None:
            return None
        tensors, versions, answer = self._kept
        same = len(tensors) == len(asked) and all(old is new for old, new in zip(tensors, asked, strict=True))
        return answer if same and versions == _versions(asked) else None

    def put(self, answer: Answer, *asked: Tensor) -> Answer:
        """Remember an answer, forget the one before, and return it."""
        # Writing to an inference tensor leaves no mark, so nothing about one is remembered.
        self._kept = None if any(tensor.is_inference() for tensor in asked) else (asked, _versions(asked), answer)
        return answer

    def forget(self) -> None:
        """Remember nothing."""
        self._kept = None


def _versions(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    """How often each tensor was written to."""
    return tuple(tensor._version for tensor in tensors)
