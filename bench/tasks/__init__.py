"""Tasks of the benchmark: the interface of a task, and the built-in tasks.

The classes of the built-in tasks are imported when a name is first used, so that importing this package imports no
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task
from logitkit.registry.scored_text import Scored

if TYPE_CHECKING:
    from logitkit.bench.tasks.code_tasks import MBPP, HumanEval, Infilling, pass_at
    from logitkit.bench.tasks.edit_outcomes import Fate
    from logitkit.bench.tasks.passages import cut_passages, halves
    from logitkit.bench.tasks.phantom_edits import PhantomEdits, fates_of
    from logitkit.bench.tasks.sandbox import Limits, Outcome, execute
    from logitkit.bench.tasks.scored_tasks import Choice, Cloze, CutSentences, Passages, Sentences, Span
    from logitkit.bench.tasks.style_metrics import (
        Continuation,
        Spread,
        StyleMeter,
        base_log_perplexity,
        distinct,
    )
    from logitkit.bench.tasks.text_tasks import GSM8K, FreeText, StyleTransfer

__all__ = [
    "GSM8K",
    "MBPP",
    "Answer",
    "Choice",
    "Cloze",
    "Continuation",
    "CutSentences",
    "Fate",
    "FreeText",
    "HumanEval",
    "Infilling",
    "Limits",
    "Metric",
    "Outcome",
    "Passages",
    "PhantomEdits",
    "Request",
    "Sample",
    "Scored",
    "Sentences",
    "Span",
    "Spread",
    "StyleMeter",
    "StyleTransfer",
    "Task",
    "base_log_perplexity",
    "cut_passages",
    "distinct",
    "execute",
    "fates_of",
    "halves",
    "pass_at",
]

_LAZY = {
    "code_tasks": ("HumanEval", "Infilling", "MBPP", "pass_at"),
    "sandbox": ("Limits", "Outcome", "execute"),
    "scored_tasks": ("Choice", "Cloze", "CutSentences", "Passages", "Sentences", "Span"),
    "edit_outcomes": ("Fate",),
    "passages": ("cut_passages", "halves"),
    "phantom_edits": ("PhantomEdits", "fates_of"),
    "style_metrics": ("Continuation", "Spread", "StyleMeter", "base_log_perplexity", "distinct"),
    "text_tasks": ("FreeText", "GSM8K", "StyleTransfer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
