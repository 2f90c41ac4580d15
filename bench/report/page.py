"""The report as one self-contained HTML page: styles and plots are inline, and there is no script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from logitkit.bench.report.plots import plots
from logitkit.bench.report.summary import Summary
from logitkit.bench.report.tables import conclusions, sheets, title

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Strategies side by side: {{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #667; --line: #d8dce2; --blue: #1f5fbf;
  --good: #11683a; --bad: #a1260d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #16181c; --soft: #9aa3ad; --line: #363b43;
  --blue: #7fb0ff; --good: #6fd39b; --bad: #ff9d87; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem;
  margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
p, li { max-width: 60rem; } .about { color: var(--soft); margin: .2rem 0 .6rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid var(--soft); }
.better { color: var(--good); font-weight: 600; } .worse { color: var(--bad); font-weight: 600; }
figure { display: inline-block; width: min(100%, 35rem); margin: .5rem 1.5rem 1.5rem 0; vertical-align: top; }
figcaption { font-weight: 600; } figure p { color: var(--soft); font-size: .85rem; margin: .2rem 0; }
figure ol { font-size: .85rem; margin: .2rem 0; columns: 2; padding-left: 1.6rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg .name { font-size: 12px; } svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); stroke-width: .6; }
svg .bar { stroke: var(--soft); stroke-width: 1.2; } svg .front { fill: none; stroke: var(--blue); stroke-width: 1.5; }
svg .on { fill: var(--blue); stroke: var(--blue); }
svg .off { fill: var(--paper); stroke: var(--blue); stroke-width: 1.5; }
code, pre { font: 13px/1.45 ui-monospace, monospace; } pre { overflow-x: auto; border: 1px solid var(--line);
  padding: .8rem; border-radius: 4px; } a { color: var(--blue); }
</style>
</head>
<body>
<header><h1>Strategies side by side</h1><p class="about">{{ title }}. Baseline: {{ baseline }}.</p></header>
<main>
{% for paragraph in reading %}<p>{{ paragraph }}</p>
{% endfor -%}
<section aria-labelledby="holds"><h2 id="holds">Differences that are shown</h2>
<ul>{% for sentence in conclusions %}<li>{{ sentence }}</li>{% else %}<li>Nothing to compare yet.</li>{% endfor %}</ul>
<p class="about">Comparisons are paired over samples. A difference is shown if its corrected p-value is below 0.05 and
its 95 % bootstrap interval excludes 0. The test is McNemar's exact test for metrics that are right or wrong, and sign
flips otherwise. Holm's correction is over the strategies, for each task and metric separately.</p></section>
{% if plots %}<section aria-labelledby="plots"><h2 id="plots">Quality against cost, and sweeps</h2>
{% for plot in plots %}<figure><figcaption>{{ plot.title }}</figcaption>{{ plot.svg }}<p>{{ plot.about }}</p>
<ol>{% for _, label, marked in plot.legend %}<li>{{ label }}{{ "" if marked else " (dominated)" }}</li>{% endfor %}</ol>
</figure>
{% endfor %}</section>{% endif %}
{% for sheet in sheets %}<section aria-labelledby="sheet-{{ loop.index }}">
<h2 id="sheet-{{ loop.index }}">{{ sheet.title }}</h2><p class="about">{{ sheet.about }}</p>
<div class="wide" tabindex="0" role="region" aria-label="{{ sheet.title }}"><table>
<thead><tr>{% for heading in sheet.headings %}<th scope="col">{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in sheet.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}\
<td class="{{ "better" if cell.endswith("better") else "worse" if cell.endswith("worse") else "" }}">\
{{ cell }}</td>{% endif %}{% endfor %}</tr>{% endfor %}
</tbody></table></div></section>
{% endfor %}
<section aria-labelledby="chains"><h2 id="chains">Strategies</h2>
<ul>{% for name, text in chains.items() %}<li>{{ name }}: <code>{{ text or "(no chain)" }}</code></li>{% endfor %}</ul>
</section>
<section aria-labelledby="manifest"><h2 id="manifest">Manifest</h2>
<p class="about">Written in {{ sessions }} session(s).</p><pre tabindex="0">{{ manifest }}</pre></section>
</main>
</body>
</html>
"""


def page(summary: Summary, manifest: dict[str, Any], sessions: Sequence[dict[str, Any]], reading: str = "") -> str:
    """Return the report as HTML.

    Args:
        summary: the results of a run.
        manifest: the manifest of the run.
        sessions: the sessions in which records were written; the page shows their number.
        reading: text that is placed first; blank lines separate its paragraphs.

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
    environment = Environment(autoescape=True)
    # Markup marks the SVG as safe: `plots` escapes every name and title itself.
    drawn = [{**vars(plot), "svg": Markup(plot.svg)} for plot in plots(summary)]
    return environment.from_string(TEMPLATE).render(
        title=title(summary),
        baseline=summary.run.compared_with,
        reading=[" ".join(part.split()) for part in reading.split("\n\n") if part.strip()],
        conclusions=conclusions(summary),
        plots=drawn,
        sheets=sheets(summary),
        chains={row.chain: row.text for table in summary.tables for row in table.rows},
        sessions=len(sessions),
        manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
    )
