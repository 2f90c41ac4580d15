"""Paired differences of two strategies of a run of the benchmark that has another baseline.

    logitkit bench examples/bench/large.yaml --out results
    python -m studies.bench_pairs results/results.jsonl core ensemble

Read are the records of the run, or a file that ``--keep`` wrote, which has the metrics alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, publish
from studies.records import append_record, read_records

UNITS = {"accuracy": "share right", "loss": "nats", "bits_per_byte": "bits a byte"}
Records = Sequence[dict[str, Any]]


def comparisons(records: Records, first: str, second: str) -> list[PairedDifferences]:
    """Return the differences of the metrics of `UNITS` on the tasks that both strategies ran, paired by sample."""
    compared = []
    for task in dict.fromkeys(record["task"] for record in records):
        of: dict[str, dict[str, Any]] = {first: {}, second: {}}
        for record in records:
            if record["task"] == task and record["chain"] in of:
                of[record["chain"]][record["sample"]] = record["metrics"]
        common = [sample for sample in of[first] if sample in of[second]]
        for metric, unit in UNITS.items():
            pairs = [(of[first][sample].get(metric), of[second][sample].get(metric)) for sample in common]
            differences = [a - b for a, b in pairs if a is not None and b is not None]
            if differences:
                compared.append(PairedDifferences(f"{task}: {first} - {second}", unit, differences))
    return compared


def main(
    results: Annotated[Path, typer.Argument(help="results.jsonl of a run.")],
    first: Annotated[str, typer.Argument(help="Name of a strategy.")],
    second: Annotated[str, typer.Argument(help="Name of the strategy that is subtracted.")],
    keep: Annotated[Path | None, typer.Option(help="A new file for the records that are compared.")] = None,
    page: Page = None,
) -> None:
    """Print the comparisons."""
    records = [record for record in read_records(results) if record.get("chain") in (first, second)]
    for record in records if keep else []:
        values = {name: record["metrics"][name] for name in UNITS if record["metrics"].get(name) is not None}
        kept = {name: round(value, 6) for name, value in values.items()}
        append_record(keep, {key: record[key] for key in ("task", "sample", "chain")} | {"metrics": kept})
    publish({"bench": comparison_table(comparisons(records, first, second))}, page)


if __name__ == "__main__":
    command.run(main)
