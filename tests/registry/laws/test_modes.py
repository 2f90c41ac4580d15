"""Every mode of generating is right or refused for every processor, as the committed page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

import logitkit
from logitkit.errors import ModeError, PluginError
from logitkit.registry import Spec
from logitkit.registry.laws import MODES, check_modes
from logitkit.registry.pages.modes_page import page, row, rows

PAGE = Path(__file__).parents[3] / "docs" / "modes.md"


@pytest.mark.parametrize("name", logitkit.names())
def test_every_mode_is_right_or_refused(name: str) -> None:
    """The results equal the page; ``python -m logitkit.registry.pages.modes_page docs/modes.md`` writes it again."""
    text = PAGE.read_text()
    notes = [line.partition(") ")[2] for line in text.split("\n") if line.startswith("(")]
    known = list(notes)
    assert row(name, check_modes(name), notes) == rows(text)[name]
    assert notes == known, "refused for a reason that the page does not tell"


def test_the_page_knows_every_processor() -> None:
    """The page has a row for each registered processor and for no other."""
    assert set(rows(PAGE.read_text())) == set(logitkit.names())


class Favours(LogitsProcessor):
    """Raises the score of the token id after the last one; right in every mode."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, (input_ids[:, -1:] + 1) % 250, torch.full((len(scores), 1), 3.0))


class ByPlace(Favours):
    """Sums token ids by the index of the row; wrong where rows change places."""

    sums: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        known = self.sums is not None and len(self.sums) == len(scores)
        self.sums = (self.sums if known else 0) + input_ids[:, -1]  # type: ignore[operator]
        return scores.scatter_add(1, self.sums[:, None] % 250, torch.full((len(scores), 1), 3.0))


class FromTheFirstCall(Favours):
    """Takes the length of its first rows as the length of the prompt."""

    start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        return scores.index_add(
            1, torch.tensor([60 + input_ids.shape[1] - self.start]), torch.full((len(scores), 1), 3.0)
        )


class CountsPadding(Favours):
    """Counts padding as text."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_add(1, torch.tensor([60 + input_ids.shape[1]]), torch.full((len(scores), 1), 3.0))


class BreaksDown(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise RuntimeError("down")


class Refuses(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise ModeError("refuses: everything must be plain, got this; use another")


def spec_of(kind: type, monkeypatch: Any) -> Spec:
    """Return the Spec of a class of this file."""
    import sys
    import types

    module = types.ModuleType("their_modes")
    module.Kind = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_modes", module)
    return Spec(name="theirs", summary="s", source="s", target="their_modes:Kind", example="theirs()")


def faults(kind: type, monkeypatch: Any) -> set[str]:
    """Return the modes in which a class is neither right nor refused."""
    return {cell.mode for cell in check_modes(spec_of(kind, monkeypatch)) if cell.fault}


def test_a_stateless_processor_is_right_in_every_mode(monkeypatch: Any) -> None:
    """A processor without state is right in every mode, so no mode is impossible to satisfy."""
    cells = check_modes(spec_of(Favours, monkeypatch))
    assert [cell.mode for cell in cells] == list(MODES) and all(cell.right for cell in cells), cells


@pytest.mark.parametrize(
    ("kind", "caught"),
    [
        (ByPlace, {"greedy", "beams", "beam_sampling", "several_sequences", "assisted", "prompt_lookup", "reuse"}),
        (FromTheFirstCall, {"reuse", "left_padding"}),
        (CountsPadding, {"left_padding", "reuse", "bf16"}),
        (BreaksDown, set(MODES)),
    ],
)
def test_faulty_processors_are_caught(kind: type, caught: set[str], monkeypatch: Any) -> None:
    """A faulty processor is a fault in each mode in which it gives wrong scores."""
    assert caught <= faults(kind, monkeypatch)


def test_a_refusal_is_no_fault(monkeypatch: Any) -> None:
    """A refusal is shown with its error; a fault raises an error instead of appearing on the page."""
    cells = check_modes(spec_of(Refuses, monkeypatch))
    assert {cell.refused for cell in cells} == {"ModeError: refuses: everything must be plain, got this; use another"}
    written = page({"theirs": cells})
    assert "(1) ModeError: refuses" in written and rows(written)["theirs"].count("no (1)") == len(MODES)
    with pytest.raises(PluginError, match=r"theirs: greedy must be right or refused .* got .*RuntimeError: down"):
        page({"theirs": check_modes(spec_of(BreaksDown, monkeypatch))})
