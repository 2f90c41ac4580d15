"""What mkdocs builds from elsewhere: facts of the Specs, and the measurements of bench/results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from logitkit.registry.pages import man_page as manual
from logitkit.registry.pages import readme_table as catalogue

DOCS = Path(__file__).parent
RESULTS, REPORT = DOCS.parent / "studies" / "results", DOCS.parent / "examples" / "bench" / "report.md"
# What commands write: a page of its own, in the navigation once it is there; and the last section of the laws.
MEASURED = {"Ways of generating, measured": "modes.md"}
OTHERS, MARK = DOCS / "laws_of_others.md", "<!-- laws of others -->"


def on_config(config: Any) -> Any:
    """Put the written pages that are there behind the laws, and results without a title of ours behind the others."""
    for section in config.nav:
        if "Measurements" in section:
            named = {name for entry in section["Measurements"] for name in entry.values()}
            results = {f"measurements/{path.name}": path.stem for path in sorted(RESULTS.glob("*.md"))}
            more = [{stem.replace("_", " ").capitalize(): name} for name, stem in results.items() if name not in named]
            section["Measurements"] += more
        if "Writing your own" in section:
            found = [{title: name} for title, name in MEASURED.items() if (DOCS / name).is_file()]
            section["Writing your own"] += found
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every result with its pictures, under measurements/."""
    for path in (*sorted(RESULTS.iterdir()), REPORT):
        if path.suffix in (".md", ".svg", ".png"):
            files.append(File.generated(config, f"measurements/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by what they stand for."""
    others = f"## What others keep\n\n{OTHERS.read_text(encoding='utf-8')}" if OTHERS.is_file() else ""
    markdown = markdown.replace(MARK, others)
    return manual.filled(markdown.replace("<!-- processors -->", catalogue.table()))
