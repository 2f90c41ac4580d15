"""The report as one self-contained HTML page: styles, plots, data and the script are inline, and nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from logitkit.bench.report.answers import as_script
from logitkit.bench.report.conclusions import conclusions
from logitkit.bench.report.design import design
from logitkit.bench.report.plots import READING, plots
from logitkit.bench.report.summary import Summary
from logitkit.bench.report.tables import METHOD, sheets, title
from logitkit.bench.report.wording import counted


def page(
    summary: Summary,
    manifest: dict[str, Any],
    sessions: Sequence[dict[str, Any]],
    reading: str = "",
    answers: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the report as HTML.

    Args:
        summary: the results of a run.
        manifest: the manifest of the run.
        sessions: the sessions in which records were written; the page shows their number.
        reading: text that is placed first; blank lines separate its paragraphs, and backticks enclose code.
        answers: the answers to every sample, from `logitkit.bench.report.answers`; the page lists and searches them.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store
        >>> from logitkit.bench.report import summarise
        >>> html = page(summarise(run, Store(folder / 'results')), manifest={}, sessions=[])
        >>> html.startswith('<!DOCTYPE html>')
        True
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    # Markup marks as safe: `plots` escapes every name, and `as_script` every character that could end the element.
    drawn = [{**vars(plot), "svg": Markup(plot.svg)} for plot in plots(summary)]
    script = _template("answers.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_template("report.html.jinja")).render(
        title=title(summary),
        baseline=summary.run.compared_with,
        reading=[with_code(" ".join(part.split())) for part in reading.split("\n\n") if part.strip()],
        conclusions=conclusions(summary),
        method=METHOD,
        design=design(summary),
        plots=drawn,
        plots_reading=READING,
        sheets=sheets(summary),
        chains={row.chain: row.text for table in summary.tables for row in table.rows},
        sessions=counted(len(sessions), "session"),
        manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
        answers=Markup(as_script(answers)) if answers else "",
        first=answers[0]["strategies"][0] if answers else "",
        length=answers[0]["length"] if answers else 0,
        script=Markup(script),
        hash=f"sha256-{digest}",
    )


def with_code(text: str) -> Markup:
    """Return a text as HTML in which what stands between backticks is code.

    >>> with_code("a < b in `logitkit bench`")
    Markup('a &lt; b in <code>logitkit bench</code>')
    >>> with_code("one ` alone")
    Markup('one ` alone')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _template(name: str) -> str:
    """Return a file beside the templates of the report."""
    return files("logitkit.bench.report").joinpath(f"templates/{name}").read_text(encoding="utf-8")
