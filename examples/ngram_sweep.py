"""Measure n-gram style injection at several weights, with the measures of ``python -m studies.style_sweep``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from logitkit.processors.ngram import NgramTable
from studies.style_report import report
from studies.style_sweep import Sweep

STYLE = "It was the first of the tales that the old sailor told, and he told it well. The sea was calm, he said."
OTHER = "The old sailor told the tale of the calm sea, and it was the first that he told."


def main(model: Any, tokenizer: Any, tokens: int = 8) -> str:
    """Return a report on three weights; the tables here have one sentence each, too few for reliable numbers."""
    tables = [NgramTable.train([text], tokenizer) for text in (STYLE, OTHER)]
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(model, tokenizer, *tables, tokens=tokens, file=Path(folder) / "rows.jsonl")
        weights = [("lift", weight, f"ngram_style('style', {weight})") for weight in (0.1, 0.2, 0.4)]
        return report(sweep.run([("none", 0.0, ""), *weights]), about="one sentence of style")


if __name__ == "__main__":
    from logitkit import models

    print(main(*models.load("smollm2-135m"), tokens=32))
