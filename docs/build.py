"""Build the documentation: ``python docs/build.py``, or ``python docs/build.py serve`` to see it while writing.

The pages in docs/ hold marks for what is written elsewhere: facts of the Specs, settings of the benchmark, measurements
in studies/results, the report in examples/bench, a reference page for each package. Notebooks become pages with their
outputs. This script writes the filled pages to build/docs, and zensical makes the site in site/ from them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bench_tables
import notebooks
from latex2mathml.converter import convert

from logitkit.registry.chain_document import VERSION
from logitkit.registry.chain_schema import chain_schema
from logitkit.registry.pages import man_page as manual
from logitkit.registry.pages import readme_table as catalogue

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FILLED = ROOT / "build" / "docs"
RESULTS, REPORT = ROOT / "studies" / "results", ROOT / "examples" / "bench" / "report.md"
OTHERS, MARK = DOCS / "laws_of_others.md", "<!-- laws of others -->"
SURFACE = DOCS / "reference" / "surface.txt"
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.DOTALL)


def filled(markdown: str) -> str:
    """Return a page with its marks replaced, and formulas between dollar signs as MathML, which browsers draw."""
    others = f"## What others keep\n\n{OTHERS.read_text(encoding='utf-8')}" if OTHERS.is_file() else ""
    markdown = markdown.replace(MARK, others).replace("<!-- processors -->", catalogue.table())
    parts = CODE.split(bench_tables.filled(manual.filled(markdown)))
    return "".join(part if number % 2 else FORMULA.sub(_formula, part) for number, part in enumerate(parts))


def _formula(match: re.Match[str]) -> str:
    """Return a formula as MathML on one line: a paragraph of its own between double dollar signs."""
    block, inline = match.groups()
    return convert((block or inline).strip(), display="block" if block else "inline").replace("\n", " ")


def packages() -> dict[str, list[str]]:
    """Return the public names of each package, as the recorded surface lists them."""
    found: dict[str, list[str]] = {"logitkit.errors": [], "logitkit.params": []}
    for line in SURFACE.read_text(encoding="utf-8").splitlines():
        if line.startswith("logitkit"):
            package, _, name = line.rpartition(".")
            found.setdefault(package, []).append(name)
    return dict(sorted(found.items()))


def write(folder: Path = FILLED) -> None:
    """Write every page and picture of the site to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", OTHERS.name))
    measurements = folder / "measurements"
    measurements.mkdir()
    for path in (*RESULTS.iterdir(), REPORT):
        if path.suffix in (".md", ".svg", ".png"):
            shutil.copy(path, measurements)
    for package, names in packages().items():
        listed = "Public names: " + ", ".join(f"`{name}`" for name in names) + ".\n\n" if names else ""
        page = folder / "reference" / f"{package}.md"
        page.write_text(f"# {package}\n\n{listed}::: {package}\n", encoding="utf-8")
    schema = json.dumps(chain_schema(), indent=1) + "\n"
    (folder / "reference" / f"chain-{VERSION}.schema.json").write_text(schema, encoding="utf-8")
    for path in notebooks.TUTORIALS.glob("*.ipynb"):
        page = folder / path.relative_to(DOCS).with_suffix(".md")
        page.write_text(notebooks.markdown(path), encoding="utf-8")
    for page in folder.rglob("*.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Write the pages and build or serve the site; warnings are errors."""
    write()
    action = ["serve"] if sys.argv[1:] == ["serve"] else ["build", "--clean", "--strict"]
    command = [shutil.which("zensical") or "zensical", *action]
    raise SystemExit(subprocess.run(command, cwd=ROOT).returncode)  # noqa: S603 - arguments are written here


if __name__ == "__main__":
    main()
