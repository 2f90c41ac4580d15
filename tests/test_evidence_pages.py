"""The pages of evidence: numbers of the prose are in the tables, and generated parts are as the code makes them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_choosing_page import NUMBER
from test_docs import DOCS, ROOT

from logitkit.bench.report import Interval
from studies import bench_pairs, evidence, evidence_plan, guided_cost, leaderboard
from studies.evidence import RESULTS
from studies.records import read_records

FOLDER = ROOT / "studies" / "results"
PAGES = sorted(path for path in FOLDER.glob("*.md") if RESULTS.search(path.read_text(encoding="utf-8")))
PARTS = (
    "**Verdict.**",
    "## Claim",
    "arXiv:",
    "## Setting",
    "## Choices",
    "held-out",
    "## Cost",
    "## Make it",
    "--page",
)


def text_of(path: Path) -> str:
    """Return the text of a page."""
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_numbers_of_the_prose_are_in_the_tables(path: Path) -> None:
    """Numbers of the claim are those of the papers, and are left out."""
    text = text_of(path)
    tables = "\n".join(match[0] for match in RESULTS.finditer(text))
    prose = re.sub(r"## Claim.*?\n## ", "\n## ", RESULTS.sub("", text), flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`|arXiv:[\d.]+", "", prose)
    assert [number for number in NUMBER.findall(prose) if number not in tables] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_was_claimed_chosen_and_paid(path: Path) -> None:
    """Every page has the same parts, intervals, power and a verdict of one line."""
    text = text_of(path)
    assert [part for part in PARTS if part not in text] == []
    assert "| p (Holm) | seen with 80 % power |" in text
    (line,) = re.findall(r"^\*\*Verdict\.\*\*.*$", text, re.MULTILINE)
    assert line.endswith(".")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_place(path: Path) -> None:
    """In the navigation, in the table of evidence and on the leaderboard, with its records beside it."""
    place = f"measurements/{path.name}"
    assert place in text_of(ROOT / "mkdocs.yml") and place in text_of(DOCS / "evidence.md")
    assert path.stem in leaderboard.PAGES
    assert (FOLDER / "records" / f"{path.stem}.jsonl").is_file()


def bare(table: str) -> str:
    """Return a table without the ends of its intervals and its p-values, which take long to compute."""
    return re.sub(r"\| <?[\d.]+ (\| [\w.]+ \|)$", r"| p \1", re.sub(r" \[[^]]*\]", "", table), flags=re.MULTILINE)


def mean_alone(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """Return the mean or the ratio of sums, without its interval."""
    return Interval(float(np.sum(values) / (len(values) if weights is None else np.sum(weights))), 0.0, 0.0)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_tables_of_a_page_are_those_of_its_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means, counts, choices and power; a page of tables that are not of its study names them here."""
    study = importlib.import_module(f"studies.{path.stem}")
    for module in (study, evidence):
        monkeypatch.setattr(module, "bootstrap_interval", mean_alone, raising=False)
    monkeypatch.setattr(evidence, "sign_flips", lambda differences: 0.5)
    tables = study.results(read_records(FOLDER / "records" / f"{path.stem}.jsonl"))
    if path.stem == "ensemble_pairs":
        records = read_records(FOLDER / "records" / "core_ensemble.jsonl")
        tables["bench"] = evidence.comparison_table(bench_pairs.comparisons(records, "core", "ensemble"))
    if path.stem == "guided_code":
        tables |= guided_cost.results(read_records(FOLDER / "records" / "guided_code_cost.jsonl"))
    parts = {match[2]: match[0] for match in RESULTS.finditer(text_of(path))}
    assert parts.keys() == tables.keys()
    assert [name for name, table in tables.items() if bare(table) not in bare(parts[name])] == []


def test_the_table_of_pages_is_that_of_the_plan() -> None:
    """Its hours follow from tokens and speeds."""
    (part,) = RESULTS.finditer(text_of(DOCS / "evidence.md"))
    assert evidence_plan.table() in part[0]
    (referee,) = (page for page in evidence_plan.PAGES if page.letter == "e")
    assert referee.hours == referee.tokens / 50 / 3600


def test_the_leaderboard_is_made_of_the_results_that_stand() -> None:
    """It is what the command writes, and each of its numbers is in the report or in a page."""
    report = text_of(leaderboard.REPORT)
    pages = {path.stem: text_of(path) for path in PAGES}
    page = text_of(FOLDER / "leaderboard.md")
    assert page == leaderboard.leaderboard(report, pages)
    sources = "\n".join([report, *pages.values()])
    numbers = re.findall(r"[\d.]*\d", page.split("\n## ", 1)[1])
    assert len(numbers) > 300 and [number for number in numbers if number not in sources] == []
