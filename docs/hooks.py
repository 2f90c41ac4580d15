"""What mkdocs builds from elsewhere: facts of the Specs, and the measurements of bench/results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from logitkit.registry import catalogue, manual

RESULTS = Path(__file__).parents[1] / "bench" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Add every result with its pictures, under measurements/."""
    for path in sorted(RESULTS.iterdir()):
        if path.suffix in (".md", ".svg", ".png"):
            files.append(File.generated(config, f"measurements/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by what they stand for."""
    return manual.filled(markdown.replace("<!-- processors -->", catalogue.table()))
