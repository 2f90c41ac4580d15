"""Every way of generating is right for every processor, or refused by name; the committed page says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

import logitkit
from logitkit.errors import ModeError, PluginError
from logitkit.registry.laws import MODES, check_modes
from logitkit.registry.pages.modes_page import page, row, rows
from logitkit.registry.spec import Spec

PAGE = Path(__file__).parents[3] / "docs" / "modes.md"


@pytest.mark.parametrize("name", logitkit.names())
def test_every_way_is_right_or_refused(name: str) -> None:
    """As the page says; write it again with ``python -m logitkit.registry.pages.modes_page docs/modes.md``."""
    text = PAGE.read_text()
    notes = [line.partition(") ")[2] for line in text.split("\n") if line.startswith("(")]
    known = list(notes)
    assert row(name, check_modes(name), notes) == rows(text)[name]
    assert notes == known, "refused for a reason that the page does not tell"


def test_the_page_knows_every_processor() -> None:
    """And no other."""
    assert set(rows(PAGE.read_text())) == set(logitkit.names())


class Favours(LogitsProcessor):
    """Honest: makes the token after the last one likelier."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, (input_ids[:, -1:] + 1) % 250, torch.full((len(scores), 1), 3.0))


class ByPlace(Favours):
    """Adds up what it saw in a row, by place: beams and other texts change places."""

    sums: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        known = self.sums is not None and len(self.sums) == len(scores)
        self.sums = (self.sums if known else 0) + input_ids[:, -1]  # type: ignore[operator]
        return scores.scatter_add(1, self.sums[:, None] % 250, torch.full((len(scores), 1), 3.0))


class FromTheFirstCall(Favours):
    """Takes the first call's length for the prompt's."""

    start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        return scores.index_add(
            1, torch.tensor([60 + input_ids.shape[1] - self.start]), torch.full((len(scores), 1), 3.0)
        )


class CountsPadding(Favours):
    """Takes the row's length for the text's."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_add(1, torch.tensor([60 + input_ids.shape[1]]), torch.full((len(scores), 1), 3.0))


class BreaksDown(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise RuntimeError("down")


class Refuses(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise ModeError("refuses: everything must be plain, got this; use another")


def spec_of(kind: type, monkeypatch: Any) -> Spec:
    """A Spec of a class of this file."""
    import sys
    import types

    module = types.ModuleType("their_modes")
    module.Kind = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_modes", module)
    return Spec(name="theirs", summary="s", source="s", target="their_modes:Kind", example="theirs()")


def faults(kind: type, monkeypatch: Any) -> set[str]:
    """Ways in which a class is neither right nor refused."""
    return {cell.mode for cell in check_modes(spec_of(kind, monkeypatch)) if cell.fault}


def test_an_honest_one_is_right_everywhere(monkeypatch: Any) -> None:
    """No way is impossible."""
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
def test_what_is_wrong_is_caught(kind: type, caught: set[str], monkeypatch: Any) -> None:
    """In the ways in which it shows."""
    assert caught <= faults(kind, monkeypatch)


def test_what_is_refused_is_no_fault(monkeypatch: Any) -> None:
    """It is told with its error; a fault is not put on the page."""
    cells = check_modes(spec_of(Refuses, monkeypatch))
    assert {cell.refused for cell in cells} == {"ModeError: refuses: everything must be plain, got this; use another"}
    written = page({"theirs": cells})
    assert "(1) ModeError: refuses" in written and rows(written)["theirs"].count("no (1)") == len(MODES)
    with pytest.raises(PluginError, match=r"theirs: greedy must be right or refused .* got .*RuntimeError: down"):
        page({"theirs": check_modes(spec_of(BreaksDown, monkeypatch))})
