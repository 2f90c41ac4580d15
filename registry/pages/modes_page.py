"""The matrix of processors and modes of generating, as measured, for ``docs/modes.md``.

python -m logitkit.registry.pages.modes_page docs/modes.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from logitkit.errors import PluginError
from logitkit.registry.discovery import discover
from logitkit.registry.laws.modes import MODES, ModeResult, check_modes

INTRODUCTION = """# Modes of generating

The table is measured by `python -m logitkit.registry.pages.modes_page docs/modes.md`, on tiny models and with the
example of every processor. The tests measure it again.

**yes**: every distribution under the chain, and every token, agrees with recomputation from scratch. For this, the
generating model reads each prefix without a KV cache and without padding, and a newly bound chain is called once.
**no**: the mode is refused by the error with this number, before or at the first step. A third outcome does not exist.

`logitkit check NAME --modes` measures a processor of your own."""
NOTES = """- Static compiled: a static cache, and the forward as one graph, traced by dynamo with backend `eager`.
  Processors run outside the graph.
- bf16: logits with and without a KV cache differ by rounding; distributions are compared within a total variation of
  0.1.
- Assisted and prompt lookup: the greedy texts are compared.
- Beams: transformers gives log-probabilities to the processors. The result of `repetition_penalty` differs between
  logits and log-probabilities, with and without logitkit.
- Text generation pipeline: a pipeline encodes its text itself. Pass the text of `call.inputs`, from which
  `byte_boundary` removed the end. With the whole prompt, `byte_boundary` changes nothing.
- Encoder decoder: `byte_boundary` removes nothing from a prompt that an encoder reads.
- `cache_implementation="paged"` (continuous batching) calls no processors; `call.generate` refuses it for every
  chain."""


def row(name: str, results: Sequence[ModeResult], reasons: list[str]) -> str:
    """Return the row of one processor.

    Args:
        name: of the processor.
        results: one for each mode.
        reasons: errors that are numbered so far; new ones are appended.

    Raises:
        PluginError: a mode is neither right nor refused.
    """
    marks = []
    for result in results:
        if result.fault:
            raise PluginError(f"{name}: {result.mode} must be right or refused by a named error, got {result.fault}")
        if result.refused and result.refused not in reasons:
            reasons.append(result.refused)
        marks.append("yes" if result.right else f"no ({reasons.index(result.refused) + 1})")
    return f"| `{name}` | " + " | ".join(marks) + " |"


def page(measured: Mapping[str, Sequence[ModeResult]]) -> str:
    """Return the whole page."""
    reasons: list[str] = []
    return _page([row(name, results, reasons) for name, results in measured.items()], reasons)


def _page(measured_rows: Sequence[str], reasons: Sequence[str]) -> str:
    """Return the page with these rows and numbered reasons."""
    headings = [mode.replace("_", " ") for mode in MODES]
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|", *measured_rows]
    numbered = [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n\n".join([INTRODUCTION, "\n".join(lines), *numbered, NOTES]) + "\n"


def rows(text: str) -> dict[str, str]:
    """Return the rows of a page by processor."""
    return {line.split("`")[1]: line for line in text.split("\n") if line.startswith("| `")}


if __name__ == "__main__":
    text = page({name: check_modes(name) for name in discover(third_party="none").names()})
    Path(sys.argv[1]).write_text(text, encoding="utf-8") if len(sys.argv) > 1 else print(text)
