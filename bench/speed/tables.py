"""Measurements of speed as plain data and as tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from logitkit.bench.speed.decoding_variants import PLAIN
from logitkit.bench.speed.measurement import VariantTiming, floor, ratio
from logitkit.bench.speed.profile import UNIT, ProcessorCost
from logitkit.bench.speed.static_cache import static_name


def heading(data: Mapping[str, Any]) -> str:
    """Return the lines above the tables: the command, the versions, the machine, the model and the rounds.

    Args:
        data: ``command``, ``model``, ``device``, ``dtype``, ``rounds``, and what
            `logitkit.bench.execution.manifest.environment` returns as ``environment``.
    """
    environment = data["environment"]
    hardware, versions = environment["hardware"], environment["versions"]
    shown = ("logitkit", "torch", "transformers", "python")
    processor = f"{hardware['processor'] or hardware['machine']}, {hardware['threads']} of {hardware['cores']} cores"
    machine = ", ".join([*hardware["cuda"], processor]) if data["device"].startswith("cuda") else processor
    return "\n".join(
        [
            f"`{data['command']}`",
            "",
            f"{', '.join(f'{name} {versions[name]}' for name in shown)}; {machine}; "
            f"{data['model']}, {data['dtype']}, {data['device']}; {data['rounds']} rounds; {environment['time'][:10]}",
        ]
    )


def variant_rows(timings: Mapping[str, VariantTiming], *, batch: int, tokens: int) -> list[dict[str, Any]]:
    """Return the timings as plain data, one row for each variant.

    Args:
        timings: the timings by name; a static form stands in the row of its variant, under ``static``.
        batch, tokens: number of prompts, and of new tokens per prompt.

    Returns:
        Rows with ``name``, ``ratio`` (speed relative to plain decoding in the same form), ``floor``,
        ``tokens_per_second``, ``seconds`` of each round, ``peak`` (peak memory relative to plain decoding), ``note``
        and ``error``. A figure that was not measured is None.

    Examples:
        >>> timings = {"plain generate": VariantTiming([2.0], [1.0]), "slow": VariantTiming([4.0], [3.0])}
        >>> [(row["name"], row["ratio"], row["floor"]) for row in variant_rows(timings, batch=1, tokens=8)]
        [('plain generate', 1.0, 1.0), ('slow', 0.5, 0.5)]
    """
    forms = {static_name(name) for name in timings}
    plain, static_plain = timings[PLAIN.name], timings.get(static_name(PLAIN.name))
    rows = []
    for name, timing in timings.items():
        if name in forms:
            continue
        row = {"name": name, **_figures(plain, timing, batch * tokens)}
        if static_plain is not None:
            timing = timings[static_name(name)]
            row["static"] = {**_figures(static_plain, timing, batch * tokens), "refused": timing.refused}
        rows.append(row)
    return rows


def _figures(plain: VariantTiming, timing: VariantTiming, tokens: int) -> dict[str, Any]:
    """Return the figures of one timing beside those of plain decoding in the same form."""
    clocked = plain.forward_seconds and timing.forward_seconds
    return {
        "ratio": ratio(plain, timing) if plain.seconds and timing.seconds else None,
        "floor": floor(plain, timing) if clocked else None,
        "tokens_per_second": tokens / statistics.median(timing.seconds) if timing.seconds else None,
        "seconds": [round(seconds, 5) for seconds in timing.seconds],
        "peak": timing.peak / plain.peak if plain.peak and timing.peak else None,
        "note": timing.note,
        "error": timing.error,
    }


def variant_table(rows: list[dict[str, Any]], *, batch: int, tokens: int) -> str:
    """Return the rows of `variant_rows` as a Markdown table; with static forms it has two columns more.

    Examples:
        >>> rows = variant_rows({"plain generate": VariantTiming([2.0], [1.0])}, batch=1, tokens=8)
        >>> print(variant_table(rows, batch=1, tokens=8).splitlines()[-1])
        | plain generate | 1.000 | 1.000 | 4.0 |  |  |
    """
    static = ["static: speed / plain", "static: tokens/s"] if "static" in rows[0] else []
    headings = ["speed / plain", "floor", "tokens/s", *static, "peak memory / plain", "notes"]
    lines = [f"| batch {batch}, {tokens} tokens | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
    for row in rows:
        cells = [_text(row["ratio"], 3), _text(row["floor"], 3), _text(row["tokens_per_second"], 1)]
        if static:
            cells += [_text(row["static"]["ratio"], 3), _text(row["static"]["tokens_per_second"], 1)]
        cells += [_text(row["peak"], 2), _notes(row)]
        lines.append(f"| {' | '.join([row['name'], *cells])} |")
    return "\n".join(lines)


def _notes(row: Mapping[str, Any]) -> str:
    """Return the notes of a row: those of its run, those of its static form where they differ, and errors."""
    notes = [f"not measured: {row['error']}"] if row["error"] else [row["note"]]
    static = row.get("static", {"note": row["note"], "error": ""})
    if static["error"]:
        notes.append(f"static: not measured: {static['error']}")
    elif static["note"] != row["note"]:
        notes.append(f"static: {static['note'] or 'none of these'}")
    return "; ".join(filter(None, notes)).replace("|", r"\|")


def processor_rows(costs: Mapping[str, ProcessorCost]) -> list[dict[str, Any]]:
    """Return the profile of processors as plain data, one row for each.

    Examples:
        >>> processor_rows({UNIT: ProcessorCost(seconds=0.002, syncs=0)})[0]["milliseconds"]
        2.0
    """
    unit = costs[UNIT].seconds
    return [
        {
            "name": name,
            "milliseconds": None if cost.error else 1000 * cost.seconds,
            "relative": None if cost.error else cost.seconds / unit,
            "host_reads": None if cost.error else cost.syncs,
            "vocabulary": cost.vocab,
            "error": cost.error,
        }
        for name, cost in costs.items()
    ]


def processor_table(rows: list[dict[str, Any]], *, vocab: int, batch: int) -> str:
    """Return the rows of `processor_rows` as a Markdown table."""
    lines = [
        f"| vocabulary {vocab}, batch {batch} | ms/step | time / log_softmax | host reads/step |",
        "|---|---|---|---|",
    ]
    for row in rows:
        name = row["name"] if row["vocabulary"] in (None, vocab) else f"{row['name']}, vocabulary {row['vocabulary']}"
        name = f"{name}: not measured: {row['error']}" if row["error"] else name
        cells = [_text(row["milliseconds"], 3), _text(row["relative"], 1), _text(row["host_reads"], None)]
        lines.append(f"| {' | '.join([name.replace('|', chr(92) + '|'), *cells])} |")
    return "\n".join(lines)


def failures(data: Mapping[str, Any]) -> list[str]:
    """Return what could not be measured, with the reason. A static form that is refused by name is no failure."""
    rows = [(row["name"], row) for table in [*data["variants"], *data["processors"]] for row in table["rows"]]
    rows += [(static_name(name), row["static"]) for name, row in rows if "static" in row]
    found = [f"{name}: {row['error']}" for name, row in rows if row["error"] and not row.get("refused")]
    return list(dict.fromkeys(found))


def _text(value: float | None, digits: int | None) -> str:
    """Return a number with this many decimals, or in its shortest form; nothing for None."""
    if value is None:
        return ""
    return f"{value:g}" if digits is None else f"{value:.{digits}f}"
