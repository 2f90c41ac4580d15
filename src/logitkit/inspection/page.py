"""An inspection as one self-contained HTML page: no network access, and readable without scripts."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from logitkit.inspection.formatting import format_bits, format_notes, spoken_text, visible_text
from logitkit.inspection.measurement import Inspection
from logitkit.inspection.moves import Move

LARGEST_MOVES = 8  # lines of the table of largest moves


def html_page(inspection: Inspection) -> str:
    """Return an inspection as one HTML page.

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=3)
    >>> html_page(inspection).splitlines()[0]
    '<!doctype html>'
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"visible": visible_text, "bits": format_bits, "notes": format_notes, "percent": _percent}
    source = files("logitkit.inspection").joinpath("templates/inspect.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        inspection=inspection,
        completion=inspection.completion,
        facts=_facts(inspection),
        tokens=[_token(inspection, number, move) for number, move in enumerate(inspection.moves)],
        most_moved=[(number, move) for number, move in inspection.most_moved(LARGEST_MOVES) if move.js_bits > 0],
        processors=_processors(inspection),
        token_text=inspection.token_text,
        legend=[(value, _depth(value)) for value in (0.001, 0.01, 0.1, 0.3, 1.0)],
    )


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Return the facts above the tokens as (term, value)."""
    completion, moves = inspection.completion, inspection.moves
    trace = completion.trace
    changed = sum(move.changed for move in moves)
    mean = sum(move.js_bits for move in moves) / max(1, len(moves))
    readers = ", ".join(f"{name} {count}" for name, count in trace.forwards.items())
    total = f"; in total: {readers}" if readers else ""
    facts = [
        ("Model", inspection.model),
        ("Settings", ", ".join(f"{name}={value}" for name, value in inspection.settings.items())),
        (
            "Moved",
            f"{format_bits(mean)} bits per token; the most probable token changed at {changed} of {len(moves)} tokens",
        ),
        ("Forwards", f"{completion.forwards_per_token:.2f} per token, of which 1 by the generating model{total}"),
    ]
    facts += [("Second streams", str(trace.fusion))] if trace.readers else []
    facts += [(f"Gate of {name}", f"fired at {share:.0%} of tokens") for name, share in trace.fired.items()]
    facts += [
        (f"{processor} {quantity}".capitalize(), f"{value:.3g} on average")
        for processor, means in trace.means.items()
        for quantity, value in means.items()
    ]
    return facts + [("Notice", notice) for notice in trace.notices]


def _token(inspection: Inspection, number: int, move: Move) -> dict[str, Any]:
    """Return what the template shows of one token."""
    text = inspection.token_text(move.token)
    label = f"token {number}: {spoken_text(text)}, moved {format_bits(move.js_bits)} bits"
    return {
        "move": move,
        "shown": "".join(
            "⏎\n" if sign == "\n" else visible_text(sign) if not sign.isprintable() else sign for sign in text
        ),
        "name": visible_text(text),
        "label": label + (", the most probable token changed" if move.changed else ""),
        "depth": _depth(move.js_bits),
        "pairs": list(zip(move.before, move.after, strict=True)),
    }


def _processors(inspection: Inspection) -> list[dict[str, Any]]:
    """Return one entry per processor: its Spec, and the mean and largest move that the processor caused alone."""
    entries = []
    for place, spec in enumerate(inspection.completion.call.chain.specs):
        moved = [move.steps[place].js_bits for move in inspection.moves]
        entries.append({"spec": spec, "mean": sum(moved) / max(1, len(moved)), "most": max(moved, default=0.0)})
    return entries


def _depth(js_bits: float) -> str:
    """Return the depth of a token's colour, 0 to 1: the Jensen-Shannon distance, which is the root of the divergence.

    Most divergences are close to 0. The root is a metric and separates small values visibly.
    """
    return f"{math.sqrt(js_bits):.3f}"


def _percent(probability: float) -> str:
    """Return a probability in percent; a positive value is never shown as 0."""
    return f"{probability:.1%}" if probability >= 0.0005 else "<0.1%" if probability > 0 else "0"
