"""The leaderboard: strategies by task from the example report, and the comparisons of the pages of evidence.

    python -m studies.leaderboard

Nothing is measured and no number is computed here: every cell is copied from the report of the benchmark or from a page
in studies/results, and a verdict follows from its interval and p-value by rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from studies import command
from studies.tables import markdown_table

RESULTS = Path(__file__).parent / "results"
REPORT = Path(__file__).parents[1] / "examples" / "bench" / "report.md"
PAGES = {
    "partial_words": "Prompts that end inside a token",
    "unspaced_words": "Prompts that end inside a token, languages without spaces",
    "context_answers": "Answers that a context states",
    "proxy_tuning": "Passages of a book with a tuned small model",
    "contrastive_amateur": "Last words under contrastive decoding",
    "ensemble_pairs": "Two models on books and programs",
    "cascade_answers": "Answers of two models",
    "critical_tokens": "Tokens of a tuned model",
    "style_prompting": "Style of a book",
    "guided_code": "Programs of MBPP",
    "adadec_humaneval": "Programs of HumanEval",
    "power_problems": "Word problems",
    "sampler_referee": "Samplers at equal diversity",
}
TASKS = ("lambada", "lambada_cut", "arc", "passages", "span", "style", "text", "infilling")
SHOWN = ("accuracy", "loss", "bits_per_byte", "style_perplexity", "distinct_3", "pass_at_1")  # metrics of the columns
NOT_SHOWN = "not shown"
HIGHER_IS_BETTER = ("share", "points")  # units of the pages; of all others, lower is better
INTERVAL = re.compile(r"[+×-]?[\d.]+ \[([+-]?[\d.]+), ([+-]?[\d.]+)\]")
LONGEST = 40  # rows of a section with every comparison of its page
INTRODUCTION = f"""# Leaderboard

Made by `python -m studies.leaderboard`, from the [example report](report.md) and pages of [evidence](../evidence.md).
*Better* and *worse* need an interval that does not contain 0 and a corrected p-value below 0.05.
The correction is Holm's, over all comparisons of the report, or of the table of a page.
Everything else is *not shown*, which does not mean equal.
Where a page has more than {LONGEST} comparisons, those that are not shown are counted here and listed there.
Brackets are 95 % intervals, paired where they are of a difference.
"""


class Table(NamedTuple):
    """A table of a page: the heading of its section, the names of its columns, and its rows."""

    section: str
    columns: list[str]
    rows: list[list[str]]


def tables_of(markdown: str) -> Iterator[Table]:
    r"""Yield the tables of a page.

    Examples:
        >>> next(tables_of("## Cost\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"))
        Table(section='Cost', columns=['a', 'b'], rows=[['1', '2']])
    """
    section, lines = "", markdown.splitlines()
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
            continue
        if rows:
            yield Table(section, rows[0], rows[2:])
            rows = []
        section = line.lstrip("# ") if line.startswith("#") else section


def report_sections(report: str) -> Iterator[str]:
    """Yield a section for each task of the report: value, difference and verdict of its metrics, and the time."""
    tables = {table.section: table for table in tables_of(report)}
    model = next(section for section in tables if section.startswith("Cost, ")).removeprefix("Cost, ")
    times = {row[0]: f"{row[1]} ({row[2]})" for row in tables[f"Cost, {model}"].rows}
    for task in TASKS:
        values, compared = tables[f"{task}, {model}"], tables[f"{task}, {model}: every metric against the baseline"]
        places = {
            name: place
            for place, column in enumerate(values.columns)
            if (name := re.split(r"[ ,]", column)[0]) in SHOWN
        }
        differences = {(row[0], re.split(r"[ ,]", row[1])[0]): row for row in compared.rows}
        rows = []
        for row in values.rows:
            cells = [row[0]]
            for name, place in places.items():
                value = re.sub(r" (better|worse|different)$", "", row[place])
                other = differences.get((row[0], name))
                cells += [value, f"{other[2]}, {other[4]}" if other else ""]
            rows.append([*cells, times.get(row[0], ""), row[-1]])
        headings = ["strategy"]
        for place in places.values():
            headings += [values.columns[place], "minus plain"]
        yield f"## {task}\n\n{markdown_table([*headings, 'time / plain', 'items'], rows)}"


def page_section(name: str, title: str, text: str) -> str:
    """Return the comparisons of all tables of a page of evidence with verdicts.

    If there are more than `LONGEST`, those that are not shown are counted in a line.

    Args:
        name: file name of the page.
        title: heading of the section.
        text: the page.
    """
    tables = [table for table in tables_of(text) if table.columns[0] == "difference"]
    rows = [[*row, verdict(row[3], row[4], row[1])] for table in tables for row in table.rows]
    about = f"From [its page]({name}.md)."
    if len(rows) > LONGEST:
        shown = [row for row in rows if row[-1] != NOT_SHOWN]
        left = f"{len(rows) - len(shown)} of {len(rows)} comparisons are *{NOT_SHOWN}*; they stand on that page alone."
        about, rows = f"{about}\n{left}", shown
    return f"## {title}\n\n{about}\n\n{markdown_table([*tables[0].columns, 'verdict on the first'], rows)}"


def verdict(interval: str, p: str, unit: str) -> str:
    """Return whether the first of two methods is better.

    Args:
        interval: mean and interval of the difference.
        p: the corrected p-value.
        unit: unit of the difference, which says whether higher is better.

    Examples:
        >>> verdict("-0.1 [-0.2, -0.05]", "<0.001", "bits a cut"), verdict("+0.1 [-0.2, +0.3]", "0.400", "share right")
        ('better', 'not shown')
    """
    match = INTERVAL.match(interval)
    if match is None:
        return NOT_SHOWN
    low, high = map(float, match.groups())
    if low <= 0 <= high or float(p.lstrip("<")) >= 0.05:
        return NOT_SHOWN
    return "better" if (low > 0) == any(word in unit for word in HIGHER_IS_BETTER) else "worse"


def leaderboard(report: str, pages: dict[str, str]) -> str:
    """Return the page.

    Args:
        report: the example report.
        pages: the text of each page of `PAGES`.
    """
    sections = [page_section(name, title, pages[name]) for name, title in PAGES.items() if name in pages]
    return "\n\n".join([INTRODUCTION.rstrip(), *report_sections(report), *sections]) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="The page to write.")] = RESULTS / "leaderboard.md",
) -> None:
    """Write the page from the results that stand."""
    pages = {name: path.read_text(encoding="utf-8") for name in PAGES if (path := RESULTS / f"{name}.md").is_file()}
    out.write_text(leaderboard(REPORT.read_text(encoding="utf-8"), pages), encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
