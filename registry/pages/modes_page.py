"""The matrices of processors and modes of generating, as measured, for ``docs/modes.md``.

python -m logitkit.registry.pages.modes_page docs/modes.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from logitkit.errors import PluginError
from logitkit.registry.discovery import discover
from logitkit.registry.laws.modes import OF_ARCHITECTURES, WAYS, ModeResult, check_modes
from logitkit.registry.laws.tiny_architectures import is_available

INTRODUCTION = """# Modes of generating

The tables are measured by `python -m logitkit.registry.pages.modes_page docs/modes.md`, on tiny models and with the
example of every processor. The tests measure them again.

**yes**: every distribution under the chain, and every token, agrees with recomputation from scratch. For this, the
generating model reads each prefix without a KV cache and without padding, and a newly bound chain is called once.
**no**: the mode is refused by the error with this number, before or at the first step. A third outcome does not exist.

`logitkit check NAME --modes` measures a processor of your own. Without the package `peft`, it leaves out LoRA and
prompt tuning."""
WAYS_HEADING = "## Ways of generating, on a Llama"
ARCHITECTURES_HEADING = """## Architectures

Two prompts of unequal length, greedy and with beams. Second models of a chain have the same architecture."""
REASONS_HEADING = "## Reasons"
NOTES = """## Notes

- Static compiled: a static cache, and the forward as one graph, traced by dynamo with backend `eager`.
  Processors run outside the graph. Fused static: a static cache, two prompts of unequal length, and two sampled
  sequences for each; second streams of the generating model are rows of its forward, as in every mode where they can.
- bf16: logits with and without a KV cache differ by rounding; distributions are compared within a total variation of
  0.1.
- Assisted, prompt lookup, early exit and universal assisted: the greedy texts are compared. Early exit drafts with the
  first layer of the model itself; universal assisted decoding drafts with a model of another tokenizer, which needs
  `call.generate`: its drafts leave out the chain. Drafts of the others leave out the steps that read second streams.
- Long and short: a prompt of 203 bytes beside one of 16. Second prompts of the examples are short.
- Beams: transformers gives log-probabilities to the processors. The result of `repetition_penalty` differs between
  logits and log-probabilities, with and without logitkit.
- Text generation pipeline: a pipeline encodes its text itself. Pass the text of `call.inputs`, from which
  `byte_boundary` removed the end. With the whole prompt, `byte_boundary` changes nothing.
- Encoder decoder: a T5, and a Bart, whose positions are absolute. `byte_boundary` removes nothing from a prompt that an
  encoder reads.
- Recurrent hybrid: a Jamba, with a Mamba layer and an attention layer. Streams read it token by token.
- Vision language: a Llava; every prompt begins with an image of its own, bound with the prompts.
- LoRA: weights of PEFT that are not merged, on a Llama; further models are plain Llamas.
- Prompt tuning: four virtual tokens of PEFT; one prompt, since PEFT counts padding as positions.
- `cache_implementation="paged"` (continuous batching) calls no processors; `call.generate` refuses it for every
  chain."""


def cells(name: str, results: Sequence[ModeResult], reasons: list[str]) -> dict[str, str]:
    """Return the entries of one processor by mode.

    Args:
        name: of the processor.
        results: of the modes that were measured.
        reasons: errors that are numbered so far; new ones are appended.

    Raises:
        PluginError: a mode is neither right nor refused.
    """
    marks = {}
    for result in results:
        if result.fault:
            raise PluginError(f"{name}: {result.mode} must be right or refused by a named error, got {result.fault}")
        if result.refused and result.refused not in reasons:
            reasons.append(result.refused)
        marks[result.mode] = "yes" if result.right else f"no ({reasons.index(result.refused) + 1})"
    return marks


def page(measured: Mapping[str, Sequence[ModeResult]]) -> str:
    """Return the whole page; a mode that was not measured has the entry ``-``."""
    reasons: list[str] = []
    marks = {name: cells(name, results, reasons) for name, results in measured.items()}
    numbered = [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    parts = [INTRODUCTION, WAYS_HEADING, _table(WAYS, marks), ARCHITECTURES_HEADING, _table([*OF_ARCHITECTURES], marks)]
    return "\n\n".join([*parts, REASONS_HEADING, *numbered, NOTES]) + "\n"


def _table(modes: Sequence[str], marks: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table with a line for each processor and a column for each mode."""
    headings = [mode.replace("_", " ") for mode in modes]
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for name, entries in marks.items():
        lines.append(f"| `{name}` | " + " | ".join(entries.get(mode, "-") for mode in modes) + " |")
    return "\n".join(lines)


def entries_of(text: str) -> dict[str, dict[str, str]]:
    """Return the entries of a page by processor and mode."""
    entries: dict[str, dict[str, str]] = {}
    modes: list[str] = []
    for line in text.split("\n"):
        columns = [column.strip() for column in line.split("|")[1:-1]]
        if columns and not columns[0]:
            modes = [heading.replace(" ", "_") for heading in columns[1:]]
        elif columns and columns[0].startswith("`"):
            entries.setdefault(columns[0].strip("`"), {}).update(zip(modes, columns[1:], strict=True))
    return entries


if __name__ == "__main__":
    absent = sorted(mode for mode, architecture in OF_ARCHITECTURES.items() if not is_available(architecture))
    if absent:
        raise SystemExit(
            f"modes_page: every mode must be measured, got no models for {', '.join(absent)}; install peft"
        )
    text = page({name: check_modes(name) for name in discover(third_party="none").names()})
    Path(sys.argv[1]).write_text(text, encoding="utf-8") if len(sys.argv) > 1 else print(text)
