"""Execute the tutorials, and write them as pages: ``python docs/notebooks.py`` stores the outputs of every notebook.

A notebook runs in a kernel of its own, in an empty folder, with the environment of this process. docs/build.py turns a
notebook with its stored outputs into a page.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parent / "tutorials"
SECONDS = 300  # for one cell
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def executed(path: Path, folder: Path) -> Any:
    """Return a notebook with its outputs, executed in a folder. An error in a cell is raised.

    Output on the standard error, such as progress bars, is left out. So are the paths of the folder.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=_environment())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of execution
        if cell.cell_type == "code":
            cell.outputs = [_tidy(output, folder) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _environment() -> dict[str, str]:
    """Return the environment of a kernel: commands of this Python are found, and output is plain and 100 wide."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sources = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    plain = {"NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(sources)}
    return {**os.environ, "PATH": search, **plain}


def _tidy(output: Any, folder: Path) -> Any:
    """Return an output without colours, without the line ends of a terminal, and without the path of the folder."""
    if "text" in output:
        output["text"] = COLOUR.sub("", output["text"]).replace("\r\n", "\n").replace(f"{folder}/", "")
    return output


def markdown(path: Path) -> str:
    """Return a notebook as a page: its text, its code, and the stored outputs behind each cell."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "bash" if source.startswith("!") else "python"
        parts.append(f"```{language}\n{source.removeprefix('!')}\n```")
        shown = "".join(_text(output) for output in cell["outputs"]).rstrip()
        parts += [f"```text\n{shown}\n```"] if shown else []
    link = f"This page is a notebook: [{path.name}]({path.name})."
    return "\n\n".join([*parts, link]) + "\n"


def _text(output: dict[str, Any]) -> str:
    """Return the text of one output."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain") or [])


def main() -> None:
    """Execute every notebook and store its outputs."""
    import nbformat

    for path in sorted(TUTORIALS.glob(sys.argv[1] if sys.argv[1:] else "*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)


if __name__ == "__main__":
    main()
