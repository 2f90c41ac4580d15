"""The matrix of processors and ways of generating, as measured: ``docs/modes.md``.

python -m logitkit.registry.pages.modes_page docs/modes.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from logitkit.errors import PluginError
from logitkit.registry.discovery import discover
from logitkit.registry.laws.modes import MODES, ModeResult, check_modes

INTRODUCTION = """# Ways of generating

Measured by `python -m logitkit.registry.pages.modes_page docs/modes.md` on tiny models,
for the example of every processor; the tests measure it again.
**yes**: every answer of the chain at every prefix, and every token, equals recomputation
from scratch: the generating model reads the prefix alone, without cache and padding, and a chain bound a moment ago is
asked once. **no**: refused by the named error below, before or at the first step. There is nothing else.

`logitkit check NAME --modes` does the same for a processor of your own."""
NOTES = """Static cache and compile: the generating model's forward is one compiled graph, traced by dynamo with backend
`eager`; the processors run between its calls. In bf16 a cache and a fresh reading differ by the model's own rounding;
answers are compared within a total variation of 0.1. With a draft (assisted, prompt lookup) the greedy text is what is
compared. Under beams scores are log-probabilities, for transformers as for us; `repetition_penalty` alone answers
otherwise to them than to logits. A pipeline encodes its text itself: give it the text of `call.inputs`, from which
`byte_boundary` has cut the end; with the uncut prompt that chain changes nothing, nor does it behind an encoder, where
nothing is cut. `cache_implementation="paged"` (continuous batching) calls no processor; `call.generate` refuses it for
every chain."""


def row(name: str, cells: Sequence[ModeResult], notes: list[str]) -> str:
    """One processor's row; why something is refused is added to the notes, once.

    Raises:
        PluginError: a cell that is neither right nor refused.
    """
    marks = []
    for cell in cells:
        if cell.fault:
            raise PluginError(f"{name}: {cell.mode} must be right or refused by a named error, got {cell.fault}")
        if cell.refused and cell.refused not in notes:
            notes.append(cell.refused)
        marks.append("yes" if cell.right else f"no ({notes.index(cell.refused) + 1})")
    return f"| `{name}` | " + " | ".join(marks) + " |"


def page(measured: Mapping[str, Sequence[ModeResult]]) -> str:
    """The whole page."""
    notes: list[str] = []
    heads = [mode.replace("_", " ") for mode in MODES]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [row(name, cells, notes) for name, cells in measured.items()]
    told = [f"({number}) {note}" for number, note in enumerate(notes, 1)]
    return "\n\n".join([INTRODUCTION, "\n".join(lines), *told, NOTES]) + "\n"


def rows(text: str) -> dict[str, str]:
    """The rows of a page, by processor."""
    return {line.split("`")[1]: line for line in text.split("\n") if line.startswith("| `")}


if __name__ == "__main__":
    text = page({name: check_modes(name) for name in discover(third_party="none").names()})
    Path(sys.argv[1]).write_text(text, encoding="utf-8") if len(sys.argv) > 1 else print(text)
