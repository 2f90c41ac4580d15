"""The tutorials: notebooks that run from the first cell to the last, with stored outputs of a small size."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_docs import DOCS, script

TUTORIALS = sorted((DOCS / "tutorials").glob("*.ipynb"))
MOST_BYTES, MOST_BYTES_OF_A_PICTURE = 40_000, 150_000


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook."""
    read: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return read


def test_there_is_a_tutorial_for_each_kind_of_user() -> None:
    """Who generates, who writes a processor, who measures."""
    assert [path.stem for path in TUTORIALS] == ["benchmark", "generate", "plugin"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_stored_with_its_outputs(path: Path) -> None:
    """Executed in order, without an error, without colours or paths of a machine, and small."""
    text, code = path.read_text(encoding="utf-8"), [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert len(text.encode()) < MOST_BYTES and "\\u001b" not in text and "\\r" not in text and "/tmp" not in text
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs and all(output["output_type"] in ("stream", "execute_result") for output in outputs)


def test_the_pictures_of_the_gallery_are_there_and_small() -> None:
    """Every picture that the gallery shows."""
    names = re.findall(r"\]\((pictures/[\w.]+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8"))
    assert len(names) == 4
    assert all((DOCS / name).stat().st_size < MOST_BYTES_OF_A_PICTURE for name in names)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_becomes_a_page(path: Path) -> None:
    """Text, code and outputs, in order; commands of a shell without their mark."""
    page = script("notebooks").markdown(path)
    assert page.startswith("# ") and "```text\n" in page and "\n!" not in page
    for cell in cells(path):
        assert "".join(cell["source"]).removeprefix("!") in page


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, smollm2_path: Path) -> None:
    """Every cell, in a kernel of its own, with the embedded model; cells print where stored ones do."""
    pytest.importorskip("ipykernel", reason="notebooks need the extra [test]")
    pytest.importorskip("nbclient", reason="notebooks need the extra [test]")
    notebook = script("notebooks").executed(path, tmp_path)
    printing = [bool(cell.get("outputs")) for cell in notebook.cells]
    assert printing == [bool(cell.get("outputs")) for cell in cells(path)]
