"""One request from its rows to the end: waits for the worker, and gives the rows up when nobody waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from logitkit.serving.engine import Engine
from logitkit.serving.row import Piece
from logitkit.serving.shapes import Shape

NOTHING = Piece("", ())


class DisconnectedError(Exception):
    """The client has left."""


class Exchange:
    """The rows of one request in the queue of an engine.

    Args:
        engine: generates the rows.
        shape: of the answer; holds the rows.
        until_left: returns when the client has left.
        began: when the request arrived, by `time.monotonic`.
    """

    def __init__(
        self, engine: Engine, shape: Shape, until_left: Callable[[], Awaitable[None]], *, began: float | None = None
    ) -> None:
        self._engine, self._shape, self._rows = engine, shape, shape.rows
        began = time.monotonic() if began is None else began
        self._until_left, self._deadline = until_left, began + engine.limits.timeout
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for row in self._rows:
            row.notify = self._notify

    def submit(self) -> None:
        """Put the rows in the queue.

        Raises:
            QueueFullError, StoppedError: see `Engine.submit`.
        """
        self._engine.submit(self._rows)

    async def answer(self) -> dict[str, Any]:
        """Return the whole answer.

        Raises:
            TimeoutError: the time is over.
            DisconnectedError: the client has left.
            Exception: what a row failed with.
        """
        pieces: list[list[Piece]] = [[] for _ in self._rows]
        async with aclosing(self._pieces()) as found:
            async for number, piece in found:
                pieces[number].append(piece)
        return self._shape.answer(pieces)

    async def parts(self, *, usage: bool) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the parts of a stream.

        Args:
            usage: whether a last part holds the numbers of tokens; all others then hold none.

        Raises:
            Exception: as in `answer`.
        """
        none = {"usage": None} if usage else {}
        for part in self._shape.opening():
            yield part | none
        async with aclosing(self._pieces()) as found:
            async for number, piece in found:
                reason = self._rows[number].finish_reason if piece is NOTHING else None
                yield self._shape.chunk(number, piece, reason=reason) | none
        if usage:
            yield self._shape.closing()

    async def _pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yield the number of a row and a piece of it as they come; `NOTHING` when the row has ended."""
        left = asyncio.ensure_future(self._until_left())
        open_rows = set(range(len(self._rows)))
        try:
            while open_rows:
                await self._wait(left)
                for number in sorted(open_rows):
                    pieces, done = self._rows[number].read()
                    for piece in pieces:
                        yield number, piece
                    if done:
                        self._raise_failure(number)
                        open_rows.discard(number)
                        yield number, NOTHING
        finally:
            left.cancel()
            self._engine.cancel(self._rows)

    async def _wait(self, left: asyncio.Future[Any]) -> None:
        """Wait for news.

        Raises:
            TimeoutError: the time is over.
            DisconnectedError: the client has left.
        """
        news: asyncio.Future[Any] = asyncio.ensure_future(self._news.wait())
        try:
            seconds = max(0.0, self._deadline - time.monotonic())
            limit = None if seconds == float("inf") else seconds
            await asyncio.wait({news, left}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if self._news.is_set():
            self._news.clear()
        elif left.done():
            raise DisconnectedError
        else:
            seconds = self._engine.limits.timeout
            raise TimeoutError(f"serve: a request must end within {seconds:g} seconds, got none that did; ask for less")

    def _raise_failure(self, number: int) -> None:
        """Raise what a row failed with."""
        error = self._rows[number].error
        if error is not None:
            raise error

    def _notify(self) -> None:
        """Wake the request; called in the worker thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)
