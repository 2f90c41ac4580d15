"""A comparison as plain data for JSON, as CSV with one line for each token, and as a file of router labels."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from logitkit.diagnostics.model_comparison import UNITS, ComparedText, ModelComparison, divergences_of
from logitkit.diagnostics.quadrants import NAMES, Share
from logitkit.errors import ModeError
from logitkit.processors.cascade import LabelSettings
from logitkit.processors.cascade.label_files import write_labels as write_label_file
from logitkit.processors.cascade.model_fingerprint import PairFingerprint

PAIRS = ("entropy", "logp", "rank", "likeliest_p")  # columns with a value for each model
SINGLE = ("kl", "reverse_kl", "js_bits", "contrast", "moved")
COLUMNS = (
    *("prompt", "token", "piece", "answer_id", "small_id", "large_id", "label", "quadrant"),
    *(f"{name}{suffix}" for name in PAIRS for suffix in ("", "_other")),
    *SINGLE,
)


def comparison_data(comparison: ModelComparison) -> dict[str, Any]:
    """Return a comparison as plain data for JSON.

    The texts have the columns of router labels, ``prompt``, ``prompt_ids``, ``answer_ids``, ``small_ids`` and
    ``labels``, and one list for each further column. A number that is infinite or undefined is None.

    Example:
        >>> import json
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> data = comparison_data(compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text"))
        >>> sorted(json.loads(json.dumps(data))["texts"][0])[:5]
        ['answer_ids', 'contrast', 'entropy', 'entropy_other', 'js_bits']
    """
    found = comparison.quadrants
    return {
        "models": list(comparison.names),
        "level": comparison.level,
        "tokens": len(comparison),
        "measure": {"name": comparison.measure, "unit": UNITS[comparison.measure]},
        "thresholds": {"entropy_nats": found.entropy, "divergence": found.divergence},
        "quadrants": [
            {
                "name": part.name,
                "tokens": part.tokens,
                "share": _share(part.share),
                "divergence": _share(part.divergence),
            }
            for part in found.quadrants
        ],
        "missed_by_entropy": _share(found.missed),
        "intervals": found.units or None,
        "carriers": {f"{share:g}": _finite(value) for share, value in comparison.carriers.items()},
        "mean_leaks": list(comparison.leaks),
        "contrast": {"beta": comparison.beta, "plausible": comparison.plausible},
        "texts": [_text(comparison, number) for number in range(len(comparison.texts))],
    }


def comparison_csv(comparison: ModelComparison) -> str:
    r"""Return a comparison as CSV: a heading, and one line for each token; texts are quoted.

    Example:
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> table = comparison_csv(compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text"))
        >>> table[:25], table.count("\n")
        ('"prompt","token","piece",', 6)
    """
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, text in enumerate(comparison.texts):
        labels, rows = comparison.labels(number), _text(comparison, number)
        first = [
            rows["pieces"],
            labels.answer_ids,
            labels.small_ids,
            rows["large_ids"],
            labels.labels,
            rows["quadrant"],
        ]
        further = [rows[name] for name in COLUMNS[8:]]
        for place, values in enumerate(zip(*first, *further, strict=True)):
            writer.writerow([number, place + len(text.prompt_ids), *("" if v is None else v for v in values)])
    return file.getvalue()


def write_labels(path: str | Path, comparison: ModelComparison, pair: PairFingerprint) -> None:
    """Write a comparison as a file of divergence labels, from which ``logitkit train-router`` trains.

    Args:
        path: the file; one that exists is replaced.
        comparison: over tokens.
        pair: fingerprints of the models and their tokenizer.

    Raises:
        ModeError: a comparison over bytes, which a router over tokens cannot learn from.

    Example:
        >>> import tempfile
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.processors.cascade import read_labels
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> found, path = compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text"), tempfile.mkdtemp() + "/l"
        >>> write_labels(path, found, PairFingerprint("a", "b", "c"))
        >>> read_labels(path)[0].judge
        'js > 0.1 bits'
    """
    if comparison.level == "bytes":
        raise ModeError("compare: labels must be of tokens, got bytes; choose two models of one tokenizer")
    rule = f"{comparison.measure} > {comparison.quadrants.divergence:g} {UNITS[comparison.measure]}"
    settings = LabelSettings(judge=rule, tokens=max(map(len, comparison.texts)), pair=pair)
    write_label_file(Path(path), settings, [comparison.labels(number) for number in range(len(comparison.texts))])


def quadrant_places(comparison: ModelComparison, text: ComparedText) -> list[int]:
    """Return for each token of a text the number of its quadrant, 0 to 3, in the order of the quadrants."""
    unsure = text.differences.entropy[:, 0] > comparison.quadrants.entropy
    apart = divergences_of(text.differences, comparison.measure) > comparison.quadrants.divergence
    return (2 * unsure.long() + apart.long()).tolist()


def _text(comparison: ModelComparison, number: int) -> dict[str, Any]:
    """Return one text as plain data."""
    text = comparison.texts[number]
    shown = text.differences
    pairs = {
        f"{name}{suffix}": _numbers(getattr(shown, name)[:, side])
        for name in PAIRS
        for side, suffix in enumerate(("", "_other"))
    }
    single = {name: _numbers(getattr(shown, name)) for name in SINGLE}
    return {
        **asdict(comparison.labels(number)),
        "large_ids": shown.likeliest[:, 1].tolist(),
        "judged": text.judged,
        "pieces": comparison.spellings.pieces(shown.ids.tolist()),
        "quadrant": [NAMES[place] for place in quadrant_places(comparison, text)],
        "left_out": text.left_out,
        "windows": text.windows,
        **pairs,
        **single,
    }


def _numbers(column: Any) -> list[Any]:
    """Return a column with five significant digits, which a divergence has at best."""
    return [value if isinstance(value, int) else _finite(value, digits=5) for value in column.tolist()]


def _share(share: Share) -> list[float | None]:
    """Return a share and its limits."""
    return [_finite(value) for value in share]


def _finite(value: float, *, digits: int = 6) -> float | None:
    """Return a number with some significant digits, or None where it is infinite or undefined."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
