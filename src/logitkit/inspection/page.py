"""An inspection as one HTML page that needs nothing else: no network, no script to be read."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from logitkit.inspection.inspection import Inspection, Move, bits, noted, spoken, visible


def page(found: Inspection) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"visible": visible, "bits": bits, "noted": noted, "percent": _percent}
    source = files("logitkit").joinpath("templates/inspect.html.jinja").read_text(encoding="utf-8")
    template = environment.from_string(source)
    done = found.completion
    return template.render(
        found=found,
        done=done,
        facts=_facts(found),
        tokens=[_token(found, number, move) for number, move in enumerate(found.moves)],
        most=[(number, move) for number, move in found.most_moved(8) if move.js_bits > 0],
        processors=_processors(found),
        spelled=found.spelled,
        legend=[(value, _depth(value)) for value in (0.001, 0.01, 0.1, 0.3, 1.0)],
    )


def _facts(found: Inspection) -> list[tuple[str, str]]:
    """What is told above the tokens, as (term, value)."""
    done = found.completion
    trace = done.trace
    settings = ", ".join(f"{name}={value}" for name, value in found.settings.items())
    changed = sum(move.changed for move in found.moves)
    mean = sum(move.js_bits for move in found.moves) / max(1, len(found.moves))
    readers = ", ".join(f"{name} {count}" for name, count in trace.forwards.items())
    facts = [
        ("Model", found.model),
        ("Settings", settings),
        ("Moved", f"{bits(mean)} bits a token; another token became the likeliest at {changed} of {len(found.moves)}"),
        (
            "Forwards",
            f"{done.forwards:.2f} a token: the generating model 1" + (f"; in all {readers}" if readers else ""),
        ),
    ]
    facts += [("Second streams", str(trace.fusion))] if trace.readers else []
    facts += [(f"Gate of {name}", f"fired at {share:.0%} of tokens") for name, share in trace.fired.items()]
    facts += [
        (f"{processor} {quantity}".capitalize(), f"{value:.3g} on average")
        for processor, means in trace.means.items()
        for quantity, value in means.items()
    ]
    return facts + [("Notice", notice) for notice in trace.notices]


def _token(found: Inspection, number: int, move: Move) -> dict[str, Any]:
    """What the template shows of a token."""
    text = found.spelled(move.token)
    said = f"token {number}: {spoken(text)}, moved {bits(move.js_bits)} bits"
    return {
        "move": move,
        "shown": "".join("⏎\n" if sign == "\n" else visible(sign) if not sign.isprintable() else sign for sign in text),
        "name": visible(text),
        "label": said + (", another token became the likeliest" if move.changed else ""),
        "depth": _depth(move.js_bits),
        "pairs": list(zip(move.before, move.after, strict=True)),
    }


def _processors(found: Inspection) -> list[dict[str, Any]]:
    """One line a processor of the chain: what it is, and how far it moved the distribution on its own."""
    lines = []
    for place, spec in enumerate(found.completion.call.chain.specs):
        moved = [move.steps[place].js_bits for move in found.moves]
        average = sum(moved) / max(1, len(moved))
        lines.append({"spec": spec, "mean": average, "most": max(moved, default=0.0)})
    return lines


def _depth(value: float) -> str:
    """How deep a token is coloured, 0 to 1: the Jensen-Shannon distance, the root of the divergence.

    The divergence itself is small nearly everywhere; its root is a metric, and tells small moves apart.
    """
    return f"{math.sqrt(value):.3f}"


def _percent(probability: float) -> str:
    """A probability as it is shown."""
    return f"{probability:.1%}" if probability >= 0.0005 else "<0.1%" if probability > 0 else "0"
