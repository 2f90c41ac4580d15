"""Comparisons on the device that the host reads together, once a step.

Reading a comparison makes the host wait for the device. Except under beams, the rows of nearly every step are the rows
of the last step with one more token each. A reader therefore assumes that the comparison of the rows holds, and
`Composite` reads all comparisons of a step together with its own check of the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor


class DeferredCheck(NamedTuple):
    """A comparison that the host has not read.

    Attributes:
        holds: a bool tensor without dimensions, on the device.
        on_failure: undoes what was computed under the assumption that the comparison holds.
    """

    holds: Tensor
    on_failure: Callable[[], None]


class DeferredChecks:
    """The unread comparisons of the running step of one call."""

    def __init__(self) -> None:
        self._unread: list[DeferredCheck] | None = None

    def check(self, holds: Tensor, on_failure: Callable[[], None]) -> bool:
        """Return True inside `collected`, and keep the comparison; elsewhere read it and return its value.

        Args:
            holds: a bool tensor without dimensions, on the device.
            on_failure: undoes the caller's later computations; called if a collected comparison does not hold.
        """
        if self._unread is None:
            return bool(holds)
        self._unread.append(DeferredCheck(holds, on_failure))
        return True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Read each comparison at once inside this block, even inside `collected`."""
        unread, self._unread = self._unread, None
        try:
            yield
        finally:
            self._unread = unread

    @contextmanager
    def collected(self) -> Iterator[list[DeferredCheck]]:
        """Collect the comparisons made inside this block; the caller must read them."""
        unread: list[DeferredCheck] = []
        self._unread = unread
        try:
            yield unread
        finally:
            self._unread = None
