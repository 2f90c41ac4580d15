"""Progress bars on standard error: the only module that sets up rich's progress display.

rich is imported when a bar is shown, so that importing this module stays fast.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

Unit = Literal["items", "bytes"]
PIPED_EVERY = 30.0  # seconds between the lines of a bar that is shown nowhere
_shown: ContextVar[Progress | None] = ContextVar("_shown", default=None)  # the display of this thread


class ProgressBar:
    """A visible or disabled progress bar; `progress_bar` creates it.

    >>> with progress_bar("tokens", total=2, enabled=False) as bar:
    ...     bar.advance()
    ...     bar.update(completed=2, description="the last token")
    """

    def __init__(self, progress: Progress, task: TaskID, *, piped: bool = False) -> None:
        self._progress, self._task = progress, task
        self._next_line = time.monotonic() + PIPED_EVERY if piped else None

    def advance(self, count: float = 1) -> None:
        """Add ``count`` to the completed amount."""
        self._progress.advance(self._task, count)
        self._print_if_due()

    def update(
        self, *, completed: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        """Set the completed amount, the total or the description; None leaves a value unchanged."""
        self._progress.update(self._task, completed=completed, total=total, description=description)
        self._print_if_due()

    def _print_if_due(self) -> None:
        """Print the state as a line if the bar is shown nowhere and the last line is `PIPED_EVERY` seconds old."""
        if self._next_line is None or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + PIPED_EVERY
        task = next(each for each in self._progress.tasks if each.id == self._task)
        total = "" if task.total is None else f" of {task.total:g}"
        print(f"{task.description}: {task.completed:g}{total}", file=sys.stderr, flush=True)

    def print(self, message: str) -> None:
        """Print a message above the bar, without interpreting markup."""
        self._progress.console.print(message, markup=False, highlight=False)


def is_bar_shown() -> bool:
    """Return whether a bar of `progress_bar` is on the terminal in this thread."""
    return _shown.get() is not None


# Over 40 lines: the arguments are documented one by one.
@contextmanager
def progress_bar(
    description: str,
    *,
    total: float | None,
    unit: Unit = "items",
    spinner: bool = False,
    enabled: bool = True,
    transient: bool = True,
    redirect_output: bool = True,
    piped: bool = False,
) -> Iterator[ProgressBar]:
    """Show a progress bar on standard error while the body runs, if standard error is a terminal.

    A bar in the body of another one is a further line of its display while the body runs.

    Args:
        description: text before the bar.
        total: the amount that completes the bar; None shows a bar of unknown length.
        unit: what the bar counts. ``"items"`` shows ``3/10``; ``"bytes"`` shows sizes and the transfer speed.
        spinner: show a spinner before the description.
        enabled: False shows nothing; the body runs unchanged.
        transient: remove the bar from the terminal at the end.
        redirect_output: print what the body writes to standard output and standard error above the bar.
        piped: where standard error is no terminal, print the state as a line every `PIPED_EVERY` seconds instead.

    Yields:
        The bar, to advance and update.

    >>> with progress_bar("items", total=3, enabled=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """
    outer = _shown.get()
    if enabled and outer is not None:
        task = outer.add_task(description, total=total)
        try:
            yield ProgressBar(outer, task)
        finally:
            outer.remove_task(task)
        return
    from rich.console import Console
    from rich.progress import Progress

    # The stream is looked up once: model conversion replaces sys.stderr while the bar is shown.
    console = Console(file=sys.stderr)
    visible = enabled and console.is_terminal
    with Progress(
        *_columns(unit, spinner),
        console=console,
        disable=not visible,
        transient=transient,
        redirect_stdout=redirect_output,
        redirect_stderr=redirect_output,
    ) as progress:
        token = _shown.set(progress if visible else None)
        try:
            task = progress.add_task(description, total=total)
            yield ProgressBar(progress, task, piped=piped and enabled and not visible)
        finally:
            with suppress(ValueError):  # a generator may be closed in another context than its own
                _shown.reset(token)


def _columns(unit: Unit, spinner: bool) -> list[ProgressColumn]:
    """Return the columns of a bar, from left to right."""
    from rich import progress

    columns: list[ProgressColumn] = [progress.SpinnerColumn()] if spinner else []
    columns += [progress.TextColumn("{task.description}"), progress.BarColumn()]
    if unit == "bytes":
        columns += [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    else:
        columns += [progress.MofNCompleteColumn()]
    return [*columns, progress.TimeRemainingColumn()]
