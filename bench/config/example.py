"""A run on tiny random models, for the examples of this package and for tests of plugins."""

from __future__ import annotations

import json
from pathlib import Path

from logitkit.bench.config.run import ChainEntry, ModelEntry, Run, TaskEntry

TEXTS = ("the ship left the harbour", "rain fell on the old town")


def example_run(folder: Path) -> Run:
    """Return a run of two chains on the last words of two texts; all it needs is written into a folder.

    Args:
        folder: an existing folder; a checkpoint of `logitkit.registry.laws.tiny_model` and the data are written there.

    Examples:
        >>> import tempfile
        >>> run = example_run(Path(tempfile.mkdtemp()))
        >>> run.pairs()
        [('tiny', 'plain', 'lambada'), ('tiny', 'cfg', 'lambada')]
    """
    from logitkit.registry.laws.tiny_models import tiny_model, tiny_tokenizer

    tiny_model().save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "texts.jsonl").write_text(rows, encoding="utf-8")
    return Run(
        models={"tiny": ModelEntry(name="tiny")},
        chains={"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)")},
        tasks={"lambada": TaskEntry(task="lambada", data="texts.jsonl")},
        folder=str(folder),
    )
