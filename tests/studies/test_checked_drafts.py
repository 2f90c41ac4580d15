"""The study of drafts that other models check."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import typer

from logitkit import models
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from studies import checked_drafts, draft_trees


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every method writes the tokens of the plain chain, which runs each model once a token."""
    pairs = {checked_drafts.MAIN: (copy.deepcopy(tiny_model()), tiny_tokenizer())}
    monkeypatch.setattr(models, "load", lambda name: pairs.get(name, (foreign_model(), foreign_tokenizer())))
    (tmp_path / "1661-0.txt").write_text("A day.")
    monkeypatch.setattr(draft_trees, "PARAGRAPH", range(4, 8))
    monkeypatch.setattr(checked_drafts, "LENGTHS", (2,))
    out = tmp_path / "checked.jsonl"
    checked_drafts.main(data=tmp_path, items=1, tokens=5, out=out)
    rows = [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]]
    methods = ["plain chain", "speculate(2)"]
    assert [row[1] for row in rows] == [*methods, "assisted decoding", *methods]
    assert all(row[7] == "1 of 1 |" for row in rows)
    assert {row[3] for row in rows if row[1] == "plain chain"} == {"1.00 [1.00, 1.00]"}
    assert all(row[4].startswith("1.00 ") for row in rows if row[1] == "plain chain")
    assert all(0 < float(row[6].split(" ")[0]) <= float(row[5].split(" ")[0]) for row in rows)  # forwards are a part
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("the runs are repeated"))
    checked_drafts.main(data=tmp_path, items=1, tokens=5, out=out)
    assert [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]] == rows


def test_a_pair_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The pair of stories drafts with one named model and checks with the other; both must be named."""
    named = {"small": tiny_model(), "large": tiny_model(1)}
    monkeypatch.setattr(models, "load", lambda name: (copy.deepcopy(named[name]), tiny_tokenizer()))
    monkeypatch.setattr(checked_drafts, "LENGTHS", (2,))
    out = tmp_path / "checked.jsonl"
    checked_drafts.main(data=tmp_path, pair=["stories"], small="small", large="large", items=1, tokens=5, out=out)
    rows = [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["| stories", name] for name in ("plain chain", "speculate(2)", "assisted decoding")
    ]
    with pytest.raises(typer.BadParameter, match="must name the two models of stories"):
        checked_drafts.main(data=tmp_path, pair=["stories"], small="small", items=1, tokens=5, out=out)


def test_an_assistant_under_guidance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every method writes the text of the chain; with an assistant the large model runs fewer forwards."""
    named = {"small": tiny_model(), "large": tiny_model()}
    monkeypatch.setattr(models, "load", lambda name: (copy.deepcopy(named[name]), tiny_tokenizer()))
    out = tmp_path / "checked.jsonl"
    checked_drafts.main(data=tmp_path, pair=["guided"], small="small", large="large", items=1, tokens=5, out=out)
    rows = [line.split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]]
    assert [row[1] for row in rows] == [
        "plain chain", "plain chain, lazy", "assistant, 2 drafts", "assistant, 4 drafts", "chain in 2 drafts",
    ]  # fmt: skip
    own = {row[1]: float(row[2].split(" ")[0]) for row in rows}
    assert own["plain chain"] == 1 and own["plain chain, lazy"] == 2
    assert own["assistant, 2 drafts"] <= 1 < own["chain in 2 drafts"]
