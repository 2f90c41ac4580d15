"""What a search cost and found, as plain data of a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """The cost and the diagnostics of the search of one `generate`.

    Attributes:
        search: name of the search; ``sampling`` where a selector chooses among independent samples.
        selector: name of the selector; None: the chain has none.
        forwards: forward passes of the generating model.
        tokens: tokens that these forwards read, over all rows, padding included.
        peak_rows: largest number of rows in the KV cache at once.
        peak_cache_bytes: largest number of bytes that the KV caches of the rows and of second streams held at once.
        peak_device_bytes: largest number of bytes of all tensors on the GPU during the search, weights included, as
            torch counts them; None: the model is on no CUDA device.
        sequences: sequences that were found for each prompt.
        log_z: estimate of the log normalising constant of each prompt, nats; empty: the search gives none.
        notes: further numbers of the search, such as the effective sample sizes of ``smc``.

    >>> SearchReport(search="smc", forwards=3, tokens=24, peak_rows=8, peak_cache_bytes=96, sequences=8).log_z
    ()
    """

    search: str
    selector: str | None = None
    forwards: int
    tokens: int
    peak_rows: int
    peak_cache_bytes: int
    peak_device_bytes: int | None = None
    sequences: int
    log_z: tuple[float, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
