"""``logitkit show``."""

from __future__ import annotations

import json

from command_line import logitkit_command


def test_the_page_describes_the_processor() -> None:
    """The page holds the formula, the source, and each parameter with rule, default and neutral value."""
    page = logitkit_command("show", "uscd").stdout
    assert "rho: a finite number >= 0 (default 0.7, off at 0)" in page
    assert "form: one of 'diff', 'ratio' (default 'diff')" in page
    assert "arXiv:2409.05923" in page and "FORMULA" in page
    data = json.loads(logitkit_command("show", "uscd", "--json").stdout)
    assert data["parameters"]["properties"]["rho"]["neutral"] == 0
