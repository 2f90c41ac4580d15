"""What readers take for granted during a step, until the one time at which the host reads the device.

That a step's rows are those of the step before and one token more is nearly always so, except under beams. A reader
may go on as if it were, while the comparison waits on the device for the chain's own guard to be read with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

Claim = tuple[Tensor, Callable[[], None]]


class DeferredChecks:
    """Claims of one call, each with what to do if it turns out false."""

    def __init__(self) -> None:
        self._claims: list[Claim] | None = None

    def expect(self, holds: Tensor, otherwise: Callable[[], None]) -> bool:
        """Go on as if it held, where someone will read it; else read it now.

        Args:
            holds: a bool on the device.
            otherwise: undoes what was built on it.
        """
        if self._claims is None:
            return bool(holds)
        self._claims.append((holds, otherwise))
        return True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Read each check at once inside this block, as if no step were running."""
        claims, self._claims = self._claims, None
        try:
            yield
        finally:
            self._claims = claims

    @contextmanager
    def collected(self) -> Iterator[list[Claim]]:
        """Collect the claims made meanwhile; whoever opens this reads them."""
        claims: list[Claim] = []
        self._claims = claims
        try:
            yield claims
        finally:
            self._claims = None
