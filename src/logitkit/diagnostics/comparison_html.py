"""A comparison of two models as one self-contained HTML page: no network access, and readable without scripts."""

from __future__ import annotations

import json
import math
from typing import Any

from markupsafe import Markup

from logitkit.diagnostics.comparison_export import comparison_csv, comparison_data, quadrant_places
from logitkit.diagnostics.comparison_summary import (
    facts,
    largest_moves,
    most_critical,
    most_divergent,
    quadrant_sentence,
    share_text,
)
from logitkit.diagnostics.model_comparison import ComparedText, ModelComparison
from logitkit.diagnostics.quadrants import NAMES
from logitkit.inspection.colour_depth import divergence_depth, divergence_samples, proportional_depth
from logitkit.inspection.formatting import format_bits, format_percent, spoken_text, visible_text
from logitkit.inspection.page_templates import page_templates

LISTED = 15  # lines of the tables of tokens
DEEPEST_ENTROPY, DEEPEST_CONTRAST = 6.0, 10.0  # nats; larger values have the same colour
MOST_TOKENS = 3000  # tokens of all texts that are shown with their details
LEAST_MOVE = 0.001  # smaller changes of a probability are not listed
TAIL = 160  # characters of a prompt in front of the compared tokens
WRONG = NAMES.index("sure and wrong")


def comparison_page(comparison: ModelComparison) -> str:
    """Return a comparison as one HTML page, in the layout of `logitkit.inspection.html_page`.

    Example:
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> comparison_page(compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text")).splitlines()[0]
        '<!doctype html>'
    """
    environment = page_templates("logitkit.diagnostics", "logitkit.inspection")
    environment.filters |= {
        "visible": visible_text,
        "bits": format_bits,
        "percent": format_percent,
        "share": share_text,
        "nats": format_nats,
    }
    gaining, losing = largest_moves(comparison, LISTED)
    data = {"json": comparison_data(comparison), "csv": comparison_csv(comparison)}
    return environment.get_template("compare.html.jinja").render(
        command="compare",
        names=comparison.names,
        unit=comparison.level[:-1],
        facts=facts(comparison),
        quadrants=comparison.quadrants.quadrants,
        sentence=quadrant_sentence(comparison),
        texts=_texts(comparison),
        divergent=most_divergent(comparison, LISTED),
        critical=most_critical(comparison, LISTED),
        gaining=gaining,
        losing=losing,
        legends=_legends(comparison.names[0]),
        shown=min(len(comparison), MOST_TOKENS),
        not_shown=max(0, len(comparison) - MOST_TOKENS),
        # No "<" is left that could end the script element, or begin a comment there.
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),  # noqa: S704
    )


def format_nats(value: float) -> str:
    """Return a number of nats with two decimals.

    >>> format_nats(1.234), format_nats(-float("inf"))
    ('1.23', '-infinite')
    """
    return f"{'-' * (value < 0)}infinite" if math.isinf(value) else f"{value:.2f}"


def _texts(comparison: ModelComparison) -> list[dict[str, Any]]:
    """Return what the template shows of each text, at most `MOST_TOKENS` tokens together."""
    shown, number = [], 0
    for text in comparison.texts:
        count = min(len(text), MOST_TOKENS - number)
        pieces = comparison.spellings.pieces([*text.prompt_ids, *text.differences.ids.tolist()])
        prompt = "".join(pieces[: len(text.prompt_ids)])
        tokens = _tokens(comparison, text, pieces[len(text.prompt_ids) :], number, count)
        shown.append({"prompt": prompt if len(prompt) <= TAIL else "…" + prompt[1 - TAIL :], "tokens": tokens})
        number += count
    return shown


def _tokens(
    comparison: ModelComparison, text: ComparedText, pieces: list[str], number: int, count: int
) -> list[dict[str, Any]]:
    """Return what the template shows of the first ``count`` tokens of a text; ``number`` is that of its first."""
    columns, names = text.differences, comparison.spellings.name
    places = quadrant_places(comparison, text)
    lists = {name: getattr(columns, name).tolist() for name in columns._fields}
    found = []
    for place in range(count):
        of = {name: values[place] for name, values in lists.items()}
        differs, wrong = of["likeliest"][0] != of["likeliest"][1], places[place] == WRONG
        marks = [", another token is most likely"] * differs + [", sure and wrong"] * wrong
        found.append(
            of
            | {
                "number": number + place,
                "place": len(text.prompt_ids) + place,
                "shown": _shown(pieces[place]),
                "name": visible_text(names(of["ids"])),
                "label": f"token {len(text.prompt_ids) + place}: {spoken_text(pieces[place])}",
                "marks": "".join(marks),
                "classes": " ".join(["changed"] * differs + ["wrong"] * wrong),
                "quadrant": NAMES[places[place]],
                "tops": [(names(top), p) for top, p in zip(of["likeliest"], of["likeliest_p"], strict=True)],
                "p": [math.exp(value) for value in of["logp"]],
                "moves": [
                    (names(token), p)
                    for token, p in zip(of["movers"], of["mover_p"], strict=True)
                    if abs(p[1] - p[0]) >= LEAST_MOVE
                ],
                "quantities": _quantities(of),
            }
        )
    return found


def _shown(piece: str) -> str:
    """Return a piece of the text with line breaks that are seen, and control characters as escapes."""
    return "".join("⏎\n" if sign == "\n" else visible_text(sign) if not sign.isprintable() else sign for sign in piece)


def _quantities(of: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return for each colouring the depth of a token's colour, 0 to 1, and its value in words."""
    return {
        "moved": (divergence_depth(of["js_bits"]), f"divergence {format_bits(of['js_bits'])} bits"),
        "entropy": (
            proportional_depth(of["entropy"][0], DEEPEST_ENTROPY),
            f"entropy {format_nats(of['entropy'][0])} nats",
        ),
        "critical": (
            proportional_depth(-of["contrast"], DEEPEST_CONTRAST),
            f"contrastive estimate {format_nats(of['contrast'])} nats",
        ),
    }


def _legends(name: str) -> dict[str, tuple[list[tuple[str, str]], str]]:
    """Return for each colouring the samples of its legend, and what the colour means."""
    return {
        "moved": (
            divergence_samples(),
            "bits of Jensen-Shannon divergence between the models, 0 to 1",
        ),
        "entropy": (
            [(f"{nats:g}", proportional_depth(nats, DEEPEST_ENTROPY)) for nats in (0.5, 1, 2, 4, DEEPEST_ENTROPY)],
            f"nats of entropy of {name}; {DEEPEST_ENTROPY:g} and more have one colour",
        ),
        "critical": (
            [(f"-{nats:g}", proportional_depth(nats, DEEPEST_CONTRAST)) for nats in (0.5, 2, 4, 7, DEEPEST_CONTRAST)],
            "nats of the contrastive estimate; the deeper the colour, the more critical the token",
        ),
    }
