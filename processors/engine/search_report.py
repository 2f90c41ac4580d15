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
        sequences: sequences that were found for each prompt.
        log_z: estimate of the log normalising constant of each prompt, nats; empty: the search gives none.
        notes: further numbers of the search, such as the effective sample sizes of ``smc``.

    >>> SearchReport(search="smc", forwards=3, tokens=24, peak_rows=8, sequences=8).log_z
    ()
    """

    search: str
    selector: str | None = None
    forwards: int
    tokens: int
    peak_rows: int
    sequences: int
    log_z: tuple[float, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
