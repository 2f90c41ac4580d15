"""The study of banned phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import banned_phrases


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """No text of a ban holds its phrase; plain decoding needs a forward a token; a second run generates nothing."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    monkeypatch.setattr(banned_phrases, "written_phrase", lambda text: text[1:2] or None)
    (tmp_path / "1661-0.txt").write_text("Short.\n\n" + "It was a day. " * 50 + "\n\nThe end.")
    out = tmp_path / "banned.jsonl"
    banned_phrases.main(data=tmp_path, model="tiny", items=1, tokens=5, out=out)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.strip().splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        [way, name] for way in banned_phrases.DECODING for name in banned_phrases.METHODS
    ]
    assert {row[5] for row in rows if row[1] != "plain"} == {"0 of 1"}
    assert {row[4] for row in rows if row[1] != "rewind"} == {"1.00 [1.00, 1.00]"}
    assert {row[3] for row in rows if row[1] == "ban_phrases"} == {"+0.00 [+0.00, +0.00]"}
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("the runs are repeated"))
    banned_phrases.main(data=tmp_path, model="tiny", items=1, tokens=5, out=out)
    assert len(capsys.readouterr().out.strip().splitlines()) == 8
