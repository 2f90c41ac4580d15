"""A report of tokenizers as one self-contained HTML page: no network access, no scripts."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from logitkit.diagnostics.tokenizer_report import TokenizerReport
from logitkit.diagnostics.tokenizer_tables import report_tables


def tokenizer_page(report: TokenizerReport) -> str:
    """Return a report as one HTML page.

    Example:
        >>> from logitkit.diagnostics import tokenizer_report
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> page = tokenizer_page(tokenizer_report({"tiny": tiny_tokenizer()}, {"note": "a cat"}))
        >>> page.splitlines()[0], "<h2>Coverage</h2>" in page
        ('<!doctype html>', True)
    """
    environment = Environment(
        loader=PackageLoader("logitkit.diagnostics"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = report_tables(report)
    title = " and ".join(report.tokenizers)
    return environment.get_template("tokenizer.html.jinja").render(title=title, tables=tables)
