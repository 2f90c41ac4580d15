"""A memo of the last result by tensor identity.

Several parts of a chain need the same result for the same rows in a step. Comparing the contents of tensors makes the
host wait for the device; comparing object identities and version counters does not.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class Memo(Generic[Result]):
    """Keeps the last result; valid for the same tensor objects until one of them is written to."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Tensor, ...], tuple[int, ...], Result] | None = None

    def get(self, *arguments: Tensor) -> Result | None:
        """Return the result kept for these tensors, or None."""
        if self._kept is None:
            return None
        tensors, versions, result = self._kept
        same = len(tensors) == len(arguments) and all(old is new for old, new in zip(tensors, arguments, strict=True))
        return result if same and versions == _versions(arguments) else None

    def put(self, result: Result, *arguments: Tensor) -> Result:
        """Replace the kept result, and return the new one."""
        # Writing to an inference tensor does not change its version, so results for inference tensors are not kept.
        inference = any(tensor.is_inference() for tensor in arguments)
        self._kept = None if inference else (arguments, _versions(arguments), result)
        return result

    def clear(self) -> None:
        """Drop the kept result."""
        self._kept = None


def _versions(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Return the version counters, which torch raises at each in-place change."""
    return tuple(tensor._version for tensor in tensors)
