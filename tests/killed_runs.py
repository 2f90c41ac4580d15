"""A run in a process that is killed: its store waits for the test before it appends records.

The processes are forked from one that has imported everything, so that a further one starts in a moment.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from logitkit.bench.config.run import Run
from logitkit.bench.execution.engine import carry_out
from logitkit.bench.execution.store import Store


class _Waiting(Store):
    """A store that waits for a message before it appends records, so that no speed decides what is written."""

    def __init__(self, folder: Path, messages: Connection) -> None:
        super().__init__(folder)
        self._messages = messages

    def add(self, records: Any) -> None:
        """Append records after the next message."""
        self._messages.recv()
        super().add(records)


def _carry_out(run: str, folder: Path, messages: Connection) -> None:
    """Carry out a run, which is given as JSON."""
    with _Waiting(folder, messages) as store:
        messages.send("ready")
        carry_out(Run.model_validate_json(run), store)


@contextmanager
def waiting_run(run: Run, folder: Path) -> Iterator[Connection]:
    """Start a run in a process of its own, yield the connection that takes a message for each unit, kill the process.

    Args:
        run: the run.
        folder: of its results.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "transformers.models.llama.modeling_llama"])
    here, there = context.Pipe()
    process = context.Process(target=_carry_out, args=(run.model_dump_json(), folder, there))
    process.start()
    there.close()  # so that the end of the process closes the connection
    try:
        assert here.recv() == "ready"
        yield here
    finally:
        process.kill()
        process.join()
