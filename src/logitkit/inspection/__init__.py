"""Inspection: what a chain did to the distribution at every token of one continuation.

inspection = inspect(model, tokenizer, "Once upon a time", "cfg(1.5)", max_new_tokens=32)
inspection.moves[3].js_bits
html_page(inspection)
"""

from logitkit.inspection.comparison import Comparison, compare
from logitkit.inspection.completion import Completion, complete
from logitkit.inspection.export import csv_table, json_data
from logitkit.inspection.measurement import Inspection, inspect
from logitkit.inspection.moves import Move
from logitkit.inspection.page import html_page
from logitkit.inspection.settings import GenerateSettings
from logitkit.inspection.streaming import Streamer
from logitkit.inspection.terminal import terminal_view

__all__ = [
    "Comparison",
    "Completion",
    "GenerateSettings",
    "Inspection",
    "Move",
    "Streamer",
    "compare",
    "complete",
    "csv_table",
    "html_page",
    "inspect",
    "json_data",
    "terminal_view",
]
