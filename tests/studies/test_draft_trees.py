"""The study of trees of drafts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import draft_trees


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every run writes the tokens of plain decoding, which needs a forward a token."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    program = {"prompt": "def f():\n", "canonical_solution": "    return 1\n"}
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as lines:
        lines.write(json.dumps(program))
    (tmp_path / "1661-0.txt").write_text("Short.\n\n" + "It was a day.\n" * 44 + "\n\nThe end.")
    assert len(draft_trees.paragraphs(tmp_path, 5)) == 1 and "`solve`" in draft_trees.programs(tmp_path, 5)[0]
    monkeypatch.setattr(draft_trees, "PARAGRAPH", range(4, 8))
    out = tmp_path / "drafts.jsonl"
    draft_trees.main(data=tmp_path, model="tiny", items=1, tokens=6, out=out)
    rows = [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]]
    assert [row[1] for row in rows] == ["plain", "prompt lookup", "goose(16)", "goose(60)"] * 2
    assert all(row[5] == "1 of 1 |" for row in rows)
    assert {row[2] for row in rows if row[1] == "plain"} == {"1.00 [1.00, 1.00]"}
    assert all(row[3].startswith("1.00 ") for row in rows if row[1] == "plain")
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("the runs are repeated"))
    draft_trees.main(data=tmp_path, model="tiny", items=1, tokens=6, out=out)
    assert [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]] == rows
