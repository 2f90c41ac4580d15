"""Inspections as one self-contained HTML page: no network access, and readable without scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from logitkit.errors import ParameterError
from logitkit.inspection.colour_depth import divergence_depth, divergence_samples, proportional_depth
from logitkit.inspection.comparison import Comparison
from logitkit.inspection.export import csv_table, json_data
from logitkit.inspection.formatting import (
    format_bits,
    format_information,
    format_notes,
    format_percent,
    spoken_text,
    visible_text,
)
from logitkit.inspection.measurement import Inspection
from logitkit.inspection.moves import Move
from logitkit.inspection.page_templates import page_templates

LARGEST_MOVES = 8  # lines of the table of largest moves
DEEPEST_ENTROPY, DEEPEST_SURPRISAL = 8.0, 10.0  # bits; larger values have the same colour
EXCERPT = 60  # characters of a prompt in a heading
TAIL = 160  # characters of a prompt in front of its continuation


def html_page(*shown: Inspection | Comparison) -> str:
    """Return inspections as one HTML page.

    Args:
        shown: one inspection or comparison for each prompt. The sides of a comparison stand side by side.

    Raises:
        ParameterError: nothing is given.

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=3)
    >>> html_page(inspection).splitlines()[0]
    '<!doctype html>'
    """
    if not shown:
        raise ParameterError("html_page", "shown", "at least one inspection or comparison", shown)
    environment = page_templates("logitkit.inspection")
    environment.filters |= {
        "visible": visible_text,
        "bits": format_bits,
        "information": format_information,
        "notes": format_notes,
        "percent": format_percent,
    }
    several = len(shown) > 1 or isinstance(shown[0], Comparison)
    prompts = [_prompt(number, item, several=several) for number, item in enumerate(shown, 1)]
    first = prompts[0]["sides"][0]["inspection"]
    return environment.get_template("inspect.html.jinja").render(
        command="inspect",
        title=" against ".join(dict.fromkeys(side["inspection"].chain for side in prompts[0]["sides"])),
        facts=_page_facts(first),
        prompts=prompts,
        compared=isinstance(shown[0], Comparison),
        legends=_legends(),
        data=_script_data({"json": json_data(*shown), "csv": csv_table(*shown)}),
    )


def _prompt(number: int, item: Inspection | Comparison, *, several: bool) -> dict[str, Any]:
    """Return what the template shows of one prompt.

    Args:
        number: number of the prompt, from 1.
        item: the inspection, or the comparison with its two sides.
        several: whether the page shows more than one inspection; the ids of tokens then name prompt and side.
    """
    inspections = item.sides if isinstance(item, Comparison) else (item,)
    prefixes = [f"p{number}{side}-" if several else "" for side in "ab"]
    parting = item.shared if isinstance(item, Comparison) and item.same_prompt and not item.equal else None
    text = " ".join(inspections[0].prompt.split())
    return {
        "number": number,
        "excerpt": text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…",
        "texts": list(dict.fromkeys(inspection.prompt for inspection in inspections)),
        "sides": [
            _side(one, prefix, parting) | {"first": number == 1 and one is inspections[0]}
            for one, prefix in zip(inspections, prefixes, strict=False)
        ],
        "comparison": item if isinstance(item, Comparison) else None,
    }


def _side(inspection: Inspection, prefix: str, parting: int | None) -> dict[str, Any]:
    """Return what the template shows of one inspection.

    Args:
        inspection: the inspection.
        prefix: begin of the ids of its tokens.
        parting: number of the first token that differs from the other side.
    """
    foreign = inspection.non_canonical or [False] * len(inspection.moves)
    tokens = [
        _token(inspection, number, move, parts=number == parting, foreign=foreign[number])
        for number, move in enumerate(inspection.moves)
    ]
    return {
        "inspection": inspection,
        "prefix": prefix,
        "prompt": inspection.prompt if len(inspection.prompt) <= TAIL else "…" + inspection.prompt[1 - TAIL :],
        "facts": _facts(inspection),
        "tokens": tokens,
        "parting": tokens[parting] if parting is not None and parting < len(tokens) else None,
        "most_moved": [(number, move) for number, move in inspection.most_moved(LARGEST_MOVES) if move.js_bits > 0],
        "processors": _processors(inspection),
        "token_text": inspection.token_text,
    }


def _page_facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Return the facts that hold for every inspection of a page."""
    settings = ", ".join(f"{name}={value}" for name, value in inspection.settings.items())
    return [("Model", inspection.model), ("Settings", settings)]


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Return the facts above the tokens as (term, value)."""
    completion, moves = inspection.completion, inspection.moves
    trace = completion.trace
    changed = sum(move.changed for move in moves)
    separate = ", ".join(f"{name} {count}" for name, count in trace.forwards.items() if count)
    moved = f"{format_bits(_mean(moves, lambda move: move.js_bits))} bits per token"
    entropy, surprisal = (
        format_information(_mean(moves, quantity))
        for quantity in (lambda move: move.entropy[1], lambda move: move.surprisal[1])
    )
    forwards = f"{completion.forwards_per_token:.2f} per token"
    changes = f"{moved}; the most probable token changed at {changed} of {_count(len(moves), 'token')}"
    facts = [("Moved", changes)] if completion.chain else []
    facts += [
        ("Entropy", f"{entropy} bits per token; surprisal {surprisal} bits per token"),
        ("Forwards", forwards + (f": 1 by the generating model, and in total {separate}" if separate else "")),
    ]
    if inspection.non_canonical is not None:
        count = sum(inspection.non_canonical)
        facts.append(("Not canonical", f"{count} of {_count(len(moves), 'token')}"))
    facts += [("Second streams", str(trace.fusion))] if trace.readers else []
    facts += [(f"Gate of {name}", f"fired at {share:.0%} of tokens") for name, share in trace.fired.items()]
    facts += [
        (f"{processor} {quantity}".capitalize(), f"{value:.3g} on average")
        for processor, means in trace.means.items()
        for quantity, value in means.items()
    ]
    return facts + [("Notice", notice) for notice in trace.notices]


def _mean(moves: list[Move], quantity: Callable[[Move], float]) -> float:
    """Return the mean of a quantity over tokens; 0 without tokens."""
    return sum(map(quantity, moves)) / max(1, len(moves))


def _count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> _count(1, "token"), _count(2, "token")
    ('1 token', '2 tokens')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _token(inspection: Inspection, number: int, move: Move, *, parts: bool, foreign: bool) -> dict[str, Any]:
    """Return what the template shows of one token.

    Args:
        inspection: the inspection.
        number: place of the token in the continuation.
        move: its move.
        parts: whether it is the first token that differs between two sides.
        foreign: whether the tokenizer would not write it here.
    """
    text = inspection.token_text(move.token)
    marks = [", the most probable token changed"] * move.changed + [", the continuations part here"] * parts
    marks += [", not a token that the tokenizer would write here"] * foreign
    return {
        "number": number,
        "move": move,
        "shown": "".join(
            "⏎\n" if sign == "\n" else visible_text(sign) if not sign.isprintable() else sign for sign in text
        ),
        "name": visible_text(text),
        "label": f"token {number}: {spoken_text(text)}",
        "marks": "".join(marks),
        "classes": " ".join(["changed"] * move.changed + ["parts"] * parts + ["foreign"] * foreign),
        "foreign": foreign,
        "quantities": {
            "moved": (divergence_depth(move.js_bits), f"moved {format_bits(move.js_bits)} bits"),
            "entropy": (
                proportional_depth(move.entropy[1], DEEPEST_ENTROPY),
                f"entropy {format_information(move.entropy[1])} bits",
            ),
            "surprisal": (
                proportional_depth(move.surprisal[1], DEEPEST_SURPRISAL),
                f"surprisal {format_information(move.surprisal[1])} bits",
            ),
        },
        "pairs": list(zip(move.before, move.after, strict=True)),
    }


def _processors(inspection: Inspection) -> list[dict[str, Any]]:
    """Return one entry per processor: its Spec, and the mean and largest move that the processor caused alone."""
    entries = []
    for place, spec in enumerate(inspection.completion.call.chain.specs):
        moved = [move.steps[place].js_bits for move in inspection.moves]
        entries.append({"spec": spec, "mean": sum(moved) / max(1, len(moved)), "most": max(moved, default=0.0)})
    return entries


def _legends() -> dict[str, tuple[list[tuple[str, str]], str]]:
    """Return for each colouring the samples of its legend, and what the colour means."""
    return {
        "moved": (
            divergence_samples(),
            "bits of Jensen-Shannon divergence between the distributions before and after the chain, 0 to 1",
        ),
        "entropy": (
            [(f"{bits:g}", proportional_depth(bits, DEEPEST_ENTROPY)) for bits in (0.5, 2, 4, 6, DEEPEST_ENTROPY)],
            f"bits of entropy of the distribution after the chain; {DEEPEST_ENTROPY:g} and more have one colour",
        ),
        "surprisal": (
            [(f"{bits:g}", proportional_depth(bits, DEEPEST_SURPRISAL)) for bits in (0.5, 2, 5, 8, DEEPEST_SURPRISAL)],
            "bits of surprisal of the chosen token after the chain: minus the base-2 logarithm of its probability; "
            f"{DEEPEST_SURPRISAL:g} and more have one colour",
        ),
    }


def _script_data(data: Any) -> Markup:
    """Return JSON that cannot end the script element that holds it, or begin a comment there."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - no "<" is left
