"""Counters of a server, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from logitkit.serving.row import Row

if TYPE_CHECKING:
    from logitkit.serving.engine import Engine

LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metrics:
    """Counters that grow; what a server does at the moment is asked of its `Engine`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._batches = self._batch_rows = 0

    def count_request(self, endpoint: str, status: int, seconds: float, prompt: int, completion: int) -> None:
        """Count a request that has ended.

        Args:
            endpoint: path of the request.
            status: status of the answer; 499 when the client left before it.
            seconds: from the arrival to the end.
            prompt, completion: numbers of tokens that were read and written.
        """
        with self._lock:
            self._requests[endpoint, status] += 1
            self._seconds[endpoint] += seconds  # type: ignore[assignment]  # a Counter counts any number
            self._tokens["prompt"] += prompt
            self._tokens["completion"] += completion

    def count_batch(self, rows: Sequence[Row]) -> None:
        """Count a batch that has ended."""
        with self._lock:
            self._batches += 1
            self._batch_rows += len(rows)

    def text(self, engine: Engine) -> str:
        """Return all numbers in the text format of Prometheus."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(engine))

    def _lines(self, engine: Engine) -> Iterator[str]:
        """Yield the lines of the text."""
        yield from _head("logitkit_requests_total", "counter", "Requests that have ended, by status.")
        for (endpoint, status), count in sorted(self._requests.items()):
            yield f'logitkit_requests_total{{endpoint="{endpoint.translate(LABEL_ESCAPES)}",status="{status}"}} {count}'
        yield from _head("logitkit_request_seconds", "summary", "Seconds from the arrival of a request to its end.")
        for endpoint, seconds in sorted(self._seconds.items()):
            ended = sum(count for (name, _), count in self._requests.items() if name == endpoint)
            yield f'logitkit_request_seconds_sum{{endpoint="{endpoint.translate(LABEL_ESCAPES)}"}} {seconds:.6f}'
            yield f'logitkit_request_seconds_count{{endpoint="{endpoint.translate(LABEL_ESCAPES)}"}} {ended}'
        yield from _head("logitkit_tokens_total", "counter", "Tokens of ended requests, read and written.")
        for kind in ("prompt", "completion"):
            yield f'logitkit_tokens_total{{kind="{kind}"}} {self._tokens[kind]}'
        for name, kind, text, value in (
            ("logitkit_batches_total", "counter", "Batches that have ended.", self._batches),
            ("logitkit_batch_rows_total", "counter", "Texts in those batches.", self._batch_rows),
            ("logitkit_queue_rows", "gauge", "Texts that wait.", engine.waiting),
            ("logitkit_running_rows", "gauge", "Texts that are generated.", engine.running),
        ):
            yield from _head(name, kind, text)
            yield f"{name} {value}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    """Yield the two lines before the values of a metric."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
