"""The benchmark: tasks x chains x models x seeds, with costs, paired statistics and reports.

Task writers import `Task`, `Metric`, `Sample`, `Request`, `Answer` and `Scored` from here. `Run` and its entries
describe a run as data. The subpackages carry a run out: `logitkit.bench.config` reads run files,
`logitkit.bench.execution` computes and stores records, `logitkit.bench.report` compares strategies, and
`logitkit.bench.speed` measures time and memory. Importing this package imports no torch.
"""

from __future__ import annotations

from logitkit.bench.config.run import ChainEntry, CostEntry, ModelEntry, ResourceEntry, Run, TaskEntry
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task
from logitkit.registry.scored_text import Scored

__all__ = [
    "Answer",
    "ChainEntry",
    "CostEntry",
    "Metric",
    "ModelEntry",
    "Request",
    "ResourceEntry",
    "Run",
    "Sample",
    "Scored",
    "Task",
    "TaskEntry",
]
