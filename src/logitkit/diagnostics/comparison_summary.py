"""What a comparison found, in words and rows, for the terminal and for the page."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from logitkit.diagnostics.comparison_export import quadrant_places
from logitkit.diagnostics.model_comparison import UNITS, ModelComparison
from logitkit.diagnostics.quadrants import BLOCK, FEWEST_UNITS, NAMES, Share
from logitkit.inspection.formatting import format_bits, format_percent, visible_text

MEASURES = {"js": "Jensen-Shannon divergence", "kl": "KL({0}, {1})", "reverse_kl": "KL({1}, {0})"}
NAMED = 5  # texts that a notice names
CONTEXT = 24  # characters of the text before a token in a table


class TokenRow(NamedTuple):
    """One row of a table of compared tokens.

    Attributes:
        number: of the token over all texts, from 0.
        text, place: number of the text, from 1, and of the token in it, counted from 0 with the tokens of its prompt.
        before, piece: the end of the text before the token, and the token.
        js_bits, contrast: numbers of `TokenDifferences`.
        likeliest: for each model its most likely token with the probability.
        quadrant: name of its quadrant.

    Example:
        >>> TokenRow(0, 1, 1, "the ", "cat", 0.5, -0.1, (("dog", 0.4), ("cat", 0.9)), "sure and wrong").piece
        'cat'
    """

    number: int
    text: int
    place: int
    before: str
    piece: str
    js_bits: float
    contrast: float
    likeliest: tuple[tuple[str, float], tuple[str, float]]
    quadrant: str


def facts(comparison: ModelComparison) -> list[tuple[str, str]]:
    """Return the facts of a comparison as terms and sentences.

    Example:
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> facts(compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text"))[0]
        ('Compared', '5 tokens of 1 text')
    """
    columns, (first, second) = comparison.columns, comparison.names
    unit = comparison.level[:-1]
    texts = len(comparison.texts)
    entropy, logp = (column.mean(0).tolist() for column in (columns.entropy, columns.logp))
    same = float((columns.likeliest[:, 0] == columns.likeliest[:, 1]).double().mean())
    found = [
        ("Compared", f"{len(comparison):,} {comparison.level} of {texts} text{'s' * (texts > 1)}"),
        *([("Bytes", _bytes_note(comparison))] if comparison.level == "bytes" else []),
        ("Entropy", f"{first} {entropy[0]:.2f}, {second} {entropy[1]:.2f} nats a {unit}"),
        ("Log-probability", f"{first} {logp[0]:.2f}, {second} {logp[1]:.2f} nats a {unit}"),
        ("Most likely", f"the same {unit} in both models at {same:.1%} of the {comparison.level}"),
        ("Divergence", _divergences(comparison)),
        ("Carried by", _carriers(comparison)),
        ("Moved", _moved(comparison)),
    ]
    return found + [("Notice", notice) for notice in _notices(comparison)]


def quadrant_sentence(comparison: ModelComparison) -> str:
    """Return how the quadrants are divided, and what a router by entropy misses."""
    found = comparison.quadrants
    measure = MEASURES[comparison.measure].format(*comparison.names)
    apart = found.quadrants[1].tokens + found.quadrants[3].tokens
    missed = (
        f"Of the {apart:,} {comparison.level} above that divergence a router by entropy at this threshold misses "
        f"{share_text(found.missed)}: {comparison.names[0]} is sure there."
        if apart
        else f"No {comparison.level[:-1]} is above that divergence."
    )
    intervals = (
        f"Intervals of 95 % by drawing {found.units} again."
        if found.units
        else f"No intervals: they need {FEWEST_UNITS} texts, or {FEWEST_UNITS} blocks of {BLOCK} tokens."
    )
    return (
        f"Unsure: the entropy of {comparison.names[0]} is above {found.entropy:.3g} nats. Apart or wrong: the "
        f"{measure} is above {found.divergence:g} {UNITS[comparison.measure]}. {missed} {intervals}"
    )


def share_text(share: Share) -> str:
    """Return a share in percent with its interval.

    >>> share_text(Share(0.25, 0.2, 0.3)), share_text(Share(math.nan, math.nan, math.nan))
    ('25.0% [20.0, 30.0]', '-')
    """
    if math.isnan(share.value):
        return "-"
    limits = "" if math.isnan(share.low) else f" [{100 * share.low:.1f}, {100 * share.high:.1f}]"
    return f"{share.value:.1%}{limits}"


def most_divergent(comparison: ModelComparison, count: int) -> list[TokenRow]:
    """Return the tokens with the largest divergence of the measure, the largest first; those without are left out."""
    return _rows(comparison, comparison.divergences, count, comparison.divergences > 0)


def most_critical(comparison: ModelComparison, count: int) -> list[TokenRow]:
    """Return the tokens with the lowest contrastive estimate, the lowest first; those where nothing differs are not."""
    contrast = comparison.columns.contrast
    return _rows(comparison, -contrast, count, comparison.columns.js_bits > 0)


def largest_moves(comparison: ModelComparison, count: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the tokens that gain most and those that lose most, as text, with the sum over all places."""
    found = []
    for sign in (1, -1):
        values, ids = (sign * comparison.gained).topk(min(count, len(comparison.gained)))
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        found.append([(comparison.spellings.name(token), sign * value) for token, value in pairs if value > 1e-9])
    return found[0], found[1]


def _rows(comparison: ModelComparison, order: Tensor, count: int, shown: Tensor) -> list[TokenRow]:
    """Return the shown tokens with the largest values of ``order``, float64 ``[tokens]``."""
    ranked = torch.where(shown, order, -torch.inf).argsort(descending=True, stable=True)[:count]
    return [_row(comparison, number) for number in ranked.tolist() if shown[number]]


def _row(comparison: ModelComparison, number: int) -> TokenRow:
    """Return one token, counted over all texts, as a row."""
    text, place = comparison.place(number)
    compared = comparison.texts[text]
    columns = compared.differences
    pieces = comparison.spellings.pieces([*compared.prompt_ids, *columns.ids.tolist()])
    at = len(compared.prompt_ids) + place
    tokens, odds = columns.likeliest[place].tolist(), columns.likeliest_p[place].tolist()
    names = [comparison.spellings.name(token) for token in tokens]
    return TokenRow(
        number=number,
        text=text + 1,
        place=at,
        before="".join(pieces[:at])[-CONTEXT:],
        piece=pieces[at],
        js_bits=float(columns.js_bits[place]),
        contrast=float(columns.contrast[place]),
        likeliest=((names[0], odds[0]), (names[1], odds[1])),
        quadrant=NAMES[quadrant_places(comparison, compared)[place]],
    )


def _divergences(comparison: ModelComparison) -> str:
    """Return the mean divergences; an infinite one is counted apart."""
    columns = comparison.columns
    parts = []
    for kind, column in (("kl", columns.kl), ("reverse_kl", columns.reverse_kl)):
        finite = column[column.isfinite()]
        mean = f"{float(finite.mean()):.3f}" if len(finite) else "-"
        without = len(column) - len(finite)
        apart = f" (infinite at {without:,} {comparison.level}, left out)" if without else ""
        parts.append(f"{MEASURES[kind].format(*comparison.names)} {mean}{apart}")
    return f"Jensen-Shannon {format_bits(float(columns.js_bits.mean()))} bits, {parts[0]} and {parts[1]} nats"


def _carriers(comparison: ModelComparison) -> str:
    """Return which share of the tokens carries the divergence."""
    shares = comparison.carriers
    if any(map(math.isnan, shares.values())):
        return f"no {comparison.level[:-1]}, or one without limit"
    half, most, all_but = [f"{format_percent(value)} carry {share:.0%}" for share, value in shares.items()]
    return f"of the {comparison.level} the most divergent {half} of the divergence, {most} and {all_but}"


def _moved(comparison: ModelComparison) -> str:
    """Return how much probability moves, and where it goes."""
    columns = comparison.columns
    moved = float(columns.moved.sum())
    share = f"{format_percent(moved / len(comparison))} of the probability stands elsewhere in {comparison.names[1]}"
    if moved <= 0:
        return share
    within = (columns.gained_within.sum(0) / moved).tolist()
    return (
        f"{share}; of it {format_percent(within[0])} goes to the most likely {comparison.level[:-1]} of "
        f"{comparison.names[0]}, {format_percent(within[1])} to its first 10 and {format_percent(within[2])} to its "
        "first 100"
    )


def _bytes_note(comparison: ModelComparison) -> str:
    """Return what is compared where the tokenizers differ."""
    leaks = [format_percent(leak) for leak in comparison.leaks]
    return (
        "the models write texts with different tokens, so the distributions are those of the next byte, exact over the "
        f"tokenizations that each tokenizer writes and normalised; {leaks[0]} and {leaks[1]} of the probability was on "
        "other tokenizations, or on bytes that the other model excludes"
    )


def _notices(comparison: ModelComparison) -> list[str]:
    """Return what a reader must know of how the texts were read."""
    notices, unit = [], comparison.level
    for texts, said in (
        (
            [number for number, text in enumerate(comparison.texts, start=1) if text.windows > 1],
            f"longer than {comparison.window:,} {unit} and read in windows, each of which begins in the middle of the "
            "one before",
        ),
        (
            [number for number, text in enumerate(comparison.texts, start=1) if text.left_out],
            f"cut, {sum(text.left_out for text in comparison.texts):,} {unit} at the end not compared",
        ),
    ):
        if texts:
            named = ", ".join(map(str, texts[:NAMED])) + f" and {len(texts) - NAMED} more" * (len(texts) > NAMED)
            notices.append(f"text{'s' * (len(texts) > 1)} {named}: {said}")
    for name, begin in zip(comparison.names, comparison.begins or (), strict=False):
        if begin:
            notices.append(f"for {name} the token {visible_text(begin)} precedes every text")
    return notices
