"""The page on choosing a strategy: every number is in the table that its paragraph names."""

from __future__ import annotations

import re

import pytest
from test_docs import DOCS, ROOT

TEXT = (DOCS / "choosing.md").read_text(encoding="utf-8")
PARAGRAPHS = [
    part for part in re.split(r"\n(?:\n|- )", TEXT.split("## What the measurements say")[1].split("\n## ")[0]) if part
]
TABLE = re.compile(r"\(measurements/(\w+)\.md\)")
NUMBER = re.compile(r"(?<![\w.`])[+-]?\d+(?:\.\d+|%)(?![\w.]*`)")


def held_by(names: list[str]) -> str:
    """Return the text of tables."""
    paths = [
        ROOT / "examples" / "bench" / "report.md" if name == "report" else ROOT / "studies" / "results" / f"{name}.md"
        for name in names
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("paragraph", PARAGRAPHS, ids=range(len(PARAGRAPHS)))
def test_every_number_is_in_a_table_that_its_paragraph_names(paragraph: str) -> None:
    """The numbers of a list are in the table that the sentence before it names."""
    before = TEXT[: TEXT.index(paragraph)]
    names = TABLE.findall(paragraph) or TABLE.findall(before)[-1:]
    code = re.sub(r"`[^`]*`", "", paragraph)
    table = held_by(names)
    assert [number for number in NUMBER.findall(code) if number not in table] == []


def test_the_page_has_numbers_and_intervals() -> None:
    """So that the test above tests something."""
    assert len(NUMBER.findall(TEXT)) > 80 and TEXT.count("[") > 50
