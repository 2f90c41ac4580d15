"""Progress bars on standard error: the only module that sets up rich's progress display.

rich is imported when a bar is shown, so that importing this module stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

Unit = Literal["items", "bytes"]


class ProgressBar:
    """A visible or disabled progress bar; `progress_bar` creates it.

    >>> with progress_bar("tokens", total=2, enabled=False) as bar:
    ...     bar.advance()
    ...     bar.update(completed=2, description="the last token")
    """

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: float = 1) -> None:
        """Add ``count`` to the completed amount."""
        self._progress.advance(self._task, count)

    def update(
        self, *, completed: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        """Set the completed amount, the total or the description; None leaves a value unchanged."""
        self._progress.update(self._task, completed=completed, total=total, description=description)

    def print(self, message: str) -> None:
        """Print a message above the bar, without interpreting markup."""
        self._progress.console.print(message, markup=False, highlight=False)


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
) -> Iterator[ProgressBar]:
    """Show a progress bar on standard error while the body runs, if standard error is a terminal.

    Args:
        description: text before the bar.
        total: the amount that completes the bar; None shows a bar of unknown length.
        unit: what the bar counts. ``"items"`` shows ``3/10``; ``"bytes"`` shows sizes and the transfer speed.
        spinner: show a spinner before the description.
        enabled: False shows nothing; the body runs unchanged.
        transient: remove the bar from the terminal at the end.
        redirect_output: print what the body writes to standard output and standard error above the bar.

    Yields:
        The bar, to advance and update.

    >>> with progress_bar("items", total=3, enabled=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """
    from rich.console import Console
    from rich.progress import Progress

    # The stream is looked up once: model conversion replaces sys.stderr while the bar is shown.
    console = Console(file=sys.stderr)
    with Progress(
        *_columns(unit, spinner),
        console=console,
        disable=not (enabled and console.is_terminal),
        transient=transient,
        redirect_stdout=redirect_output,
        redirect_stderr=redirect_output,
    ) as progress:
        yield ProgressBar(progress, progress.add_task(description, total=total))


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
