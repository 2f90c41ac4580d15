"""The example that trains a small pair of models, and the measurements on the pair."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_examples import example

from logitkit import models
from studies import small_pair


def test_the_example_and_its_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example saves three models that the study can load and measure, here after four training steps."""
    found = example("train_a_small_pair").main(steps=4, folder=tmp_path)
    assert set(found) == {"base", "tuned", "small", "base, two tokens of the tuned model"}
    base, tokenizer = models.load(str(tmp_path / "base"))
    tuned, small = (models.load(str(tmp_path / name))[0] for name in ("tuned", "small"))
    monkeypatch.setattr(small_pair, "ALPHAS", (0.0, 1.0))
    rows = small_pair.token_rules(small, tuned, tokenizer, 4)
    assert {row["rate"] for row in rows if "alpha=1.0" in row["chain"]} == {0.0}
    assert [row["rate"] for row in rows if "'random', alpha=0.0" in row["chain"]] == [pytest.approx(1)]
    monkeypatch.setattr(small_pair, "BUDGETS", (0.1,))
    switched = small_pair.crossovers(base, tuned, tokenizer, 4)
    assert len(switched) == 6 and all(0 <= row["rate"] <= 0.1 + 1 / 28 for row in switched)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3 apples and 4 more are 7 apples.", True),
        ("9 cups and 9 more are 18 cups.", True),
        ("3 apples and 4 more are 8 apples.", False),
        ("3 apples and 4 more are 7 pens.", False),
        ("3 apples and 4 more", False),
    ],
)
def test_sums_are_checked(text: str, right: bool) -> None:
    """A text is right if it has the form of a sum and states the right total of the same things."""
    assert small_pair.is_right(text) is right
