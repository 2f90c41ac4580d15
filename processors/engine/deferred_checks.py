"""Comparisons on the device that the host reads together, once a step.

Reading a comparison makes the host wait for the device. Except under beams, the rows of nearly every step are the rows
of the last step with one more token each. A reader therefore assumes that the comparison of the rows holds, and
`Composite` reads all comparisons of a step together with its own check of the scores.

A gate has to be read in the middle of a step, because a forward depends on it. This read takes the comparisons that
were made so far along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class DeferredCheck:
    """A comparison of one step.

    Attributes:
        holds: a bool tensor without dimensions, on the device.
        on_failure: undoes what was computed under the assumption that the comparison holds; None: nothing was.
        value: what the host read; None: not yet.
    """

    holds: Tensor
    on_failure: Callable[[], None] | None = None
    value: bool | None = None


class StepChecks:
    """The comparisons of one step.

    Args:
        rows: the rows of the step, ``[rows, length]``.
        grew: whether they are the rows of the last step with one more token each; None: they are not.

    Attributes:
        reads: number of times that the host read the device.

    Example:
        >>> import torch
        >>> step = StepChecks(torch.tensor([[1, 2]]), torch.tensor(True))
        >>> step.add(torch.tensor(False), None)
        >>> step.read(torch.tensor(True)), step.value_of(step.grew), len(step.unread), step.reads
        (True, True, 0, 1)
    """

    def __init__(self, rows: Tensor | None = None, grew: Tensor | None = None) -> None:
        self.rows, self.grew, self.reads = rows, grew, 0
        self._checks = [] if grew is None else [DeferredCheck(grew)]

    def add(self, holds: Tensor, on_failure: Callable[[], None] | None) -> None:
        """Keep a comparison, to be read later."""
        self._checks.append(DeferredCheck(holds, on_failure))

    @property
    def unread(self) -> list[DeferredCheck]:
        """The comparisons that the host has not read."""
        return [check for check in self._checks if check.value is None]

    def value_of(self, holds: Tensor) -> bool | None:
        """Return what the host read of this tensor; None: nothing yet."""
        return next((check.value for check in self._checks if check.holds is holds), None)

    def read(self, flag: Tensor | None = None) -> bool:
        """Read a bool tensor without dimensions, and every unread comparison with it; return its value."""
        unread = self.unread
        wanted = [check.holds for check in unread] + ([] if flag is None else [flag])
        if not wanted:
            return True
        device = wanted[0].device
        stacked = torch.stack([tensor.to(device) for tensor in wanted]) if len(wanted) > 1 else wanted[0][None]
        values = stacked.tolist()
        self.reads += 1
        for check, value in zip(unread, values, strict=False):
            check.value = value
        return bool(values[-1])

    def undo(self) -> bool:
        """Undo what assumed a comparison that does not hold; return whether there was any. All must be read."""
        failed = [check.on_failure for check in self._checks if not check.value and check.on_failure is not None]
        for on_failure in failed:
            on_failure()
        return bool(failed)


class DeferredChecks:
    """The comparisons of the running step of one call.

    Attributes:
        line: marks steps of which each continues the rows of the last one by a token. Another object marks other rows.
        rows_moved: whether a search has moved rows since the last step, so that comparisons of the coming step are read
            at once: they would seldom hold.
        assumes_places: whether rows are assumed to begin with the prompts of their places; None: no row was compared.
    """

    def __init__(self) -> None:
        self._step: StepChecks | None = None
        self.line = object()
        self.rows_moved = False
        self.assumes_places: bool | None = None

    def check(self, holds: Tensor, on_failure: Callable[[], None]) -> bool:
        """Return True inside `collected`, and keep the comparison; elsewhere, and where rows moved, return its value.

        Inside `collected`, a comparison that the host has read already in this step has its value.

        Args:
            holds: a bool tensor without dimensions, on the device.
            on_failure: undoes the caller's later computations; called if a collected comparison does not hold.
        """
        if self._step is None or self.rows_moved:
            return bool(holds)
        known = self._step.value_of(holds)
        if known is None or known:
            self._step.add(holds, on_failure) if known is None else None
            return True
        return False

    def read(self, flag: Tensor) -> bool:
        """Return the value of a bool tensor without dimensions; unread comparisons are read with it."""
        if self._step is None:
            return bool(flag)
        value = self._step.read(flag)
        if self._step.grew is not None and not self._step.value_of(self._step.grew):
            self.line = object()
        return value

    def line_of(self, rows: Tensor) -> object | None:
        """Return the line that these rows belong to; None outside a step, and for other rows than those of the step.

        Args:
            rows: ``[rows, length]``, found by tensor identity.
        """
        return self.line if self._step is not None and self._step.rows is rows else None

    def grew(self, line: object | None, rows: Tensor) -> Tensor | None:
        """Return whether rows continue the rows that had this line at an earlier step.

        Args:
            line: what `line_of` returned for the earlier rows.
            rows: ``[rows, length]``.

        Returns:
            A bool tensor on the device, which `check` takes; None: unknown, and the rows must be compared.
        """
        if line is None or self.line_of(rows) is not line:
            return None
        assert self._step is not None
        return self._step.grew

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Read each comparison at once inside this block, even inside `collected`."""
        step, self._step = self._step, None
        try:
            yield
        finally:
            self._step = step

    @contextmanager
    def collected(self, rows: Tensor | None = None, grew: Tensor | None = None) -> Iterator[StepChecks]:
        """Collect the comparisons made inside this block; the caller must read them.

        Args:
            rows: the rows of the step, ``[rows, length]``.
            grew: whether they are the rows of the last step with one more token each; None: they are not.
        """
        if grew is None:
            self.line = object()
        step = self._step = StepChecks(rows, grew)
        try:
            yield step
        finally:
            self._step, self.rows_moved = None, False
            if grew is not None and step.value_of(grew) is False:
                self.line = object()
