"""The performance guide: every figure is in the table that its line names."""

from __future__ import annotations

import re

import pytest
from test_docs import DOCS, ROOT

LINES = [
    line for line in (DOCS / "performance.md").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+| to \d+ ms| s of compilation)")
TABLE = re.compile(r"\(measurements/(\w+)\.md\)")
MEASURED = [line for line in LINES if FIGURE.search(line)]


@pytest.mark.parametrize("line", MEASURED, ids=range(len(MEASURED)))
def test_every_figure_is_in_the_table_that_its_line_names(line: str) -> None:
    """A line with a figure names a table of studies/results, which holds the figure."""
    names = TABLE.findall(line)
    assert names, f"no table is named: {line}"
    tables = "\n".join((ROOT / "studies" / "results" / f"{name}.md").read_text(encoding="utf-8") for name in names)
    assert [figure for figure in FIGURE.findall(line) if figure not in tables] == []


def test_the_guide_has_figures() -> None:
    """A dozen or more, so that the test above tests something; every named table exists."""
    assert sum(len(FIGURE.findall(line)) for line in MEASURED) > 12
    for name in TABLE.findall("\n".join(LINES)):
        assert (ROOT / "studies" / "results" / f"{name}.md").is_file()
