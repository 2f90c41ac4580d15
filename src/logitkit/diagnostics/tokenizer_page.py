"""A report of tokenizers as one self-contained HTML page: no network access, no scripts."""

from __future__ import annotations

from logitkit.diagnostics.tokenizer_report import TokenizerReport
from logitkit.diagnostics.tokenizer_tables import report_tables
from logitkit.inspection.page_templates import page_templates


def tokenizer_page(report: TokenizerReport) -> str:
    """Return a report as one HTML page.

    Example:
        >>> from logitkit.diagnostics import tokenizer_report
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> page = tokenizer_page(tokenizer_report({"tiny": tiny_tokenizer()}, {"note": "a cat"}))
        >>> page.splitlines()[0], "<h2>Coverage</h2>" in page
        ('<!doctype html>', True)
    """
    environment = page_templates("logitkit.diagnostics")
    tables = report_tables(report)
    title = " and ".join(report.tokenizers)
    return environment.get_template("tokenizer.html.jinja").render(title=title, tables=tables)
