"""Inspections as plain data for JSON, and as a CSV table with one line per token."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from logitkit.inspection.comparison import Comparison
from logitkit.inspection.measurement import Inspection
from logitkit.inspection.moves import Move, TokenProbabilities

COLUMNS = (
    *("prompt_number", "chain", "token_number", "token_id", "text", "js_bits", "changed"),
    *("probability_before", "probability_after", "rank_before", "rank_after"),
    *("entropy_before_bits", "entropy_after_bits", "surprisal_before_bits", "surprisal_after_bits", "forwards"),
    "non_canonical",
)


def json_data(*shown: Inspection | Comparison) -> dict[str, Any]:
    """Return inspections as plain data for JSON.

    Args:
        shown: one inspection or comparison for each prompt.

    Returns:
        ``{"inspections": [...]}``: one entry per prompt and chain, with its tokens. An infinite surprisal is None, and
        so is ``non_canonical`` where it is unknown.

    >>> import json
    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> data = json_data(inspect(tiny_model(), tiny_tokenizer(), "Once", "top_k(5)", max_new_tokens=3))
    >>> entry = json.loads(json.dumps(data))["inspections"][0]
    >>> entry["prompt"], entry["chain"], len(entry["tokens"]), entry["tokens"][0]["rank"]
    ('Once', 'top_k(top_k=5)', 3, {'before': 1, 'after': 1})
    """
    return {"inspections": [_entry(number, inspection) for number, inspection in _numbered(shown)]}


def csv_table(*shown: Inspection | Comparison) -> str:
    """Return inspections as CSV: a heading, and one line per token.

    Args:
        shown: one inspection or comparison for each prompt.

    Returns:
        The table in the dialect of RFC 4180 with line feeds; texts are quoted, and an infinite surprisal is ``inf``.
        ``non_canonical`` is empty where it is unknown.

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> table = csv_table(inspect(tiny_model(), tiny_tokenizer(), "Once", "top_k(5)", max_new_tokens=3))
    >>> table.splitlines()[0][:38], table.count("top_k(top_k=5)")
    ('"prompt_number","chain","token_number"', 3)
    """
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    for prompt, inspection in _numbered(shown):
        marks = inspection.non_canonical
        for number, move in enumerate(inspection.moves):
            pairs = (move.probability, move.rank, move.entropy, move.surprisal)
            writer.writerow(
                [prompt, inspection.completion.chain, number, move.token, inspection.token_text(move.token)]
                + [_rounded(move.js_bits), move.changed]
                + [_rounded(value) for pair in pairs for value in pair]
                + [sum(move.forwards.values()), "" if marks is None else marks[number]]
            )
    return file.getvalue()


def _numbered(shown: tuple[Inspection | Comparison, ...]) -> Iterator[tuple[int, Inspection]]:
    """Yield every inspection with the number of its prompt, from 1."""
    for number, item in enumerate(shown, 1):
        for inspection in item.sides if isinstance(item, Comparison) else (item,):
            yield number, inspection


def _entry(number: int, inspection: Inspection) -> dict[str, Any]:
    """Return one inspection as plain data."""
    completion = inspection.completion
    return {
        "prompt_number": number,
        "prompt": inspection.prompt,
        "chain": completion.chain,
        "model": inspection.model,
        "settings": {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in inspection.settings.items()
        },
        "text": completion.text,
        "forwards_per_token": round(completion.forwards_per_token, 3),
        "notices": list(completion.trace.notices),
        "tokens": [_token(place, inspection, move) for place, move in enumerate(inspection.moves)],
    }


def _token(number: int, inspection: Inspection, move: Move) -> dict[str, Any]:
    """Return one token as plain data."""
    return {
        "token_number": number,
        "token_id": move.token,
        "text": inspection.token_text(move.token),
        "js_bits": _rounded(move.js_bits),
        "changed": move.changed,
        "non_canonical": None if inspection.non_canonical is None else inspection.non_canonical[number],
        "probability": _pair(move.probability),
        "rank": _pair(move.rank),
        "entropy_bits": _pair(move.entropy),
        "surprisal_bits": _pair(move.surprisal),
        "forwards": dict(move.forwards),
        "before": _tokens(inspection, move.before),
        "after": _tokens(inspection, move.after),
        "processors": [
            {"name": step.processor, "js_bits": _rounded(step.js_bits), "notes": _finite(step.notes)}
            for step in move.steps
        ],
    }


def _pair(values: tuple[float, float]) -> dict[str, float | None]:
    """Return the values before and after the chain."""
    return _finite(dict(zip(("before", "after"), values, strict=True)))


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values with None in the place of those that JSON cannot hold."""
    return {name: _rounded(value) if math.isfinite(value) else None for name, value in values.items()}


def _tokens(inspection: Inspection, tokens: TokenProbabilities) -> list[dict[str, Any]]:
    """Return the most probable tokens that are possible."""
    return [
        {"token_id": token, "text": inspection.token_text(token), "probability": _rounded(probability)}
        for token, probability in tokens
        if probability > 0
    ]


def _rounded(value: float) -> float:
    """Return a measured number with the seven digits that fp32 holds; an integer stays an integer."""
    return value if isinstance(value, int) else float(f"{value:.7g}")
