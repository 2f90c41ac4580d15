"""A queue of rows and the thread that generates them, those with the same chain together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from logitkit.errors import LogitkitError
from logitkit.processors.model_facts import context_length
from logitkit.registry.bind import check_pair
from logitkit.registry.chain import Chain
from logitkit.serving.batch_run import BatchRun
from logitkit.serving.limits import Limits
from logitkit.serving.metrics import Metrics
from logitkit.serving.resources import Resources
from logitkit.serving.row import Prompt, Row


class QueueFullError(LogitkitError, RuntimeError):
    """The rows of a request do not fit in the queue; a later request may."""


class StoppedError(LogitkitError, RuntimeError):
    """The server is about to stop and takes no request."""


class Engine:
    """One model behind a queue.

    A thread takes the oldest waiting row and, with it, those that can share its batch: rows of the same chain, with the
    same kind of prompt, as far as the context of the model has room for them side by side. It generates them to their
    ends, and takes the next. A row that nobody waits for leaves the queue, or its batch at the next token.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        name: the name of the model in requests.
        chain: the chain of requests that name none.
        own_chains: whether requests may name a chain.
        resources: what chains may name.
        limits: see `Limits`.

    Attributes:
        model, tokenizer, name, chain, own_chains, resources, limits: as given.
        context: tokens that the model can read; None: no limit is known.
        metrics: counters.

    Raises:
        ModelError: no model, or no tokenizer.
        LogitkitError: a default chain that cannot be read.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> engine = Engine(tiny_model(), tiny_tokenizer(), name="tiny", chain="top_p(0.9)")
    >>> engine.start()
    >>> engine.alive, engine.waiting
    (True, 0)
    >>> engine.stop()
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "model",
        chain: str | Chain = "",
        own_chains: bool = True,
        resources: Resources | None = None,
        limits: Limits | None = None,
    ) -> None:
        check_pair("serve", model, tokenizer)
        self.model, self.tokenizer, self.name, self.chain = model, tokenizer, name, Chain(chain)
        self.own_chains, self.resources, self.limits = own_chains, resources or Resources(), limits or Limits()
        self.chain.require_packages()
        self.resources.check(self.chain)
        self.context, self.metrics = context_length(model), Metrics()
        self._runner = BatchRun(model, tokenizer, self.resources)
        self._changed, self._binding = threading.Condition(), threading.Lock()
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Number of rows in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of rows that are generated."""
        return sum(not row.done for row in self._running)

    @property
    def alive(self) -> bool:
        """Whether rows are taken and generated."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def count_tokens(self, chain: Chain, prompts: Sequence[Prompt]) -> list[int]:
        """Return the number of tokens of each prompt; the chain is bound to each as a check, and no model runs.

        Raises:
            LogitkitError: a prompt or a parameter is refused, in the words of the processor.
        """
        counts = []
        for prompt in prompts:
            with self._binding:  # one at a time: requests that arrive together must not slow the model down
                call = self._runner.bound(chain, [prompt])
            counts.append(int(call.user_prompts.mask.sum()))
        return counts

    def start(self) -> None:
        """Start the thread; without effect while it runs."""
        if not self.alive:
            self._stopping = False
            self._thread = threading.Thread(target=self._work, name="logitkit serve", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Refuse new rows, wait for those in the queue, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def submit(self, rows: Sequence[Row]) -> None:
        """Put the rows of a request in the queue, all or none.

        Raises:
            QueueFullError: they do not fit.
            StoppedError: the thread does not run.
        """
        with self._changed:
            if not self.alive:
                raise StoppedError("serve: the server must run, got a request while it stops; send it again later")
            if len(self._waiting) + len(rows) > self.limits.max_queue:
                raise QueueFullError(
                    f"serve: at most {self.limits.max_queue} texts may wait, got {len(rows)} more beside "
                    f"{len(self._waiting)}; send the request again later"
                )
            self._waiting += rows
            self._changed.notify_all()

    def cancel(self, rows: Sequence[Row]) -> None:
        """Give up rows for which nobody waits; without effect on those that are done."""
        with self._changed:
            for row in rows:
                row.cancelled = row.cancelled or not row.done
            self._waiting = [row for row in self._waiting if not row.cancelled]

    def _work(self) -> None:
        """Generate batches until the engine stops and the queue is empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                self._running = self._next_batch()
            self._runner.run(self._running)
            self.metrics.count_batch(self._running)
            self._running = []

    def _next_batch(self) -> list[Row]:
        """Take the oldest row from the queue, and those that can share its batch."""
        first, *others = self._waiting
        batch, key = [first], first.batch_key
        for row in others if key is not None else ():
            if len(batch) < self.limits.max_batch and row.batch_key == key and self._fit([*batch, row]):
                batch.append(row)
        taken = set(map(id, batch))
        self._waiting = [row for row in self._waiting if id(row) not in taken]
        return batch

    def _fit(self, rows: Sequence[Row]) -> bool:
        """Return whether rows have room side by side: all are padded to the longest, and run to the last end."""
        longest = max(row.prompt.tokens for row in rows) + max(row.new_tokens for row in rows)
        return self.context is None or longest <= self.context
