"""The style study: its metrics computed by hand, the usable range, and a whole sweep on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from logitkit.bench.tasks import Continuation, Spread, StyleMeter, base_log_perplexity, distinct
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import style_report
from studies import style_sweep as style
from studies.style_sweep import Sweep, SweepRow, configurations, halves

CORPUS = [[1, 2, 3, 1, 2, 4]]


def text(*continuation: int, prompt: tuple[int, ...] = (1,)) -> Continuation:
    """Return a continuation whose distributions the chain did not change."""
    return Continuation(prompt=list(prompt), continuation=list(continuation), js_bits=[0.0] * len(continuation))


def row_of(rule: str, weight: float, style_: float, base: float, distinct_3: float) -> SweepRow:
    """Return a row with these measurements."""
    spreads = {
        name: Spread(geometric=v, arithmetic=v, low=v, high=v) for name, v in (("style", style_), ("base", base))
    }
    more = dict.fromkeys(("js_bits", "unigram_overlap", "bigram_seen", "held_out_bigrams", "repetition_4"), 0.5)
    return SweepRow(
        rule=rule,
        weight=weight,
        chain=f"{rule} {weight}",
        held_out=spreads["style"],
        distinct_3=distinct_3,
        **spreads,
        **more,
    )


def test_style_perplexity_by_hand() -> None:
    """After token 1, the orders 1 and 2 have (2 + k) / (6 + 5k) and (2 + k) / (2 + 5k) for token 2, weighted 1 : 3."""
    meter = StyleMeter(NgramTable.count(CORPUS, size=5, orders=3), k=0.5)
    want = (0.1 * 2.5 / 8.5 + 0.3 * 2.5 / 4.5) / 0.4
    assert meter.log_perplexity(text(2)) == pytest.approx(-math.log(want))
    # After 1 2, token 4: all three orders; the trigram was seen once of two.
    third = 0.1 * 1.5 / 8.5 + 0.3 * 1.5 / 4.5 + 0.6 * 1.5 / 4.5
    assert meter.log_perplexity(text(2, 4)) == pytest.approx(-(math.log(want) + math.log(third)) / 2)


def test_overlap_bigrams_and_repetition_by_hand() -> None:
    """Two of the tokens 1 2 0 are frequent, one of its bigrams occurs, and 2 of 4 bigrams of 1 2 1 2 1 differ."""
    meter = StyleMeter(NgramTable.count(CORPUS, size=5, orders=3), frequent=2)
    assert meter.unigram_overlap(text(1, 2, 0)) == pytest.approx(2 / 3)
    assert meter.bigram_seen(text(1, 2, 0)) == 0.5
    assert distinct(text(1, 2, 1, 2, 1), 2) == 0.5 and distinct(text(1), 3) == 1.0


def test_spread_by_hand() -> None:
    """The perplexities 1 and 100 have the geometric mean 10 and the arithmetic mean 50.5."""
    spread = Spread.of([0.0, math.log(100)])
    assert spread.geometric == pytest.approx(10) and spread.arithmetic == pytest.approx(50.5)
    assert 1 < spread.low < 10 < spread.high < 100


def test_base_perplexity_is_that_of_the_model() -> None:
    """Base perplexity equals that of separate forwards over each prefix."""
    model, ids = tiny_model(), [5, 6, 7, 8]
    steps = [model(torch.tensor([ids[:n]])).logits[0, -1].log_softmax(-1)[ids[n]].item() for n in (2, 3)]
    (got,) = base_log_perplexity(model, [text(7, 8, prompt=(5, 6))])
    assert got == pytest.approx(-sum(steps) / 2, abs=1e-4)


def test_the_usable_range_is_the_longest_run() -> None:
    """The usable range is the longest sequence of weights that meet all three criteria."""
    plain = row_of("none", 0.0, 100, 2.0, 0.8)
    lift = [
        row_of("lift", 0.1, 80, 2.0, 0.8),  # too little style
        row_of("lift", 0.2, 75, 2.0, 0.8),
        row_of("lift", 0.3, 60, 2.19, 0.73),
        row_of("lift", 0.4, 60, 2.3, 0.8),  # base perplexity too high
        row_of("lift", 0.5, 50, 2.0, 0.8),
        row_of("lift", 0.6, 50, 2.0, 0.7),  # too repetitive
    ]
    rows = [plain, *lift, row_of("literal", 0.1, 120, 2.0, 0.8)]
    assert style_report.ranges(rows) == {"lift": [0.2, 0.3], "literal": []}
    page = style_report.report(rows, about="a sweep")
    assert "- lift: 0.2 to 0.3" in page and "- literal: none of those measured" in page
    assert page.count("| yes |") == 3


def test_halves_are_cut_at_a_blank_line() -> None:
    """The two halves of a text are cut at a blank line and together are the whole text."""
    first, second = halves("aaaa\n\nbb\n\ncc")
    assert (first, second) == ("aaaa\n\nbb", "\n\ncc")


def test_a_sweep_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured rows are read from the file and not measured again, and a text ends at its end token."""
    monkeypatch.setattr(style, "PROMPTS", {"kind": ["a prompt", "another one"]})
    tokenizer = tiny_tokenizer()
    tables = [NgramTable.train([t], tokenizer) for t in ("a prompt and another prompt", "one or another prompt")]
    sweep = Sweep(tiny_model(), tokenizer, *tables, tokens=6, file=tmp_path / "rows.jsonl")
    listed = [entry for entry in configurations(["lift", "literal", "target_js"]) if entry[1] in (0.0, 0.2, 0.02)]
    rows = sweep.run(listed)
    assert [row.rule for row in rows] == ["none", "lift", "literal", "target_js"]
    assert rows[0].js_bits == 0 < rows[1].js_bits and 0 < rows[3].js_bits <= 0.0201
    monkeypatch.setattr(sweep, "generate", lambda chain: pytest.fail("measured again"))
    assert sweep.run(listed) == rows


def test_the_command_writes_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes the table and the plot for a checkpoint of the tiny model."""
    pytest.importorskip("matplotlib")
    import typer

    monkeypatch.setattr(style, "PROMPTS", {"kind": ["a prompt", "another one"]})
    monkeypatch.setattr(style, "GRID", {"lift": [0.2]})
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "book.txt").write_text("a prompt and another prompt\n\none or another prompt")
    app = typer.Typer()
    app.command()(style.main)
    settings: list[Any] = ["--model", tmp_path / "model", "--out", tmp_path / "out", "--tokens", 8, "--rule", "lift"]
    done = CliRunner().invoke(app, [str(tmp_path / "book.txt"), *map(str, settings)])
    assert done.exit_code == 0, done.output
    assert "| lift | 0.2 |" in (tmp_path / "out" / "style.md").read_text()
    assert (tmp_path / "out" / "style.svg").read_text().lstrip().startswith("<?xml")
