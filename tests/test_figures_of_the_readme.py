"""The figures of the README and of the demo are those of the report."""

from __future__ import annotations

import re

import pytest
from test_docs import ROOT

from logitkit.cli.demo_acts import ACTS

REPORT = (ROOT / "examples" / "bench" / "report.md").read_text(encoding="utf-8")


def right_words(strategy: str) -> tuple[int, int]:
    """Return how many words a strategy gets right, and of how many."""
    table = REPORT.split("## lambada_cut, ")[1].split("\n## ")[0]
    (row,) = re.findall(rf"^\| {strategy} \| ([\d.]+) .* (\d+) \|$", table, re.MULTILINE)
    return round(float(row[0]) * int(row[1])), int(row[1])


@pytest.mark.parametrize("name", ["README.md", "README.package.md"])
def test_the_figures_of_the_readme(name: str) -> None:
    """Words that are completed, the loss of a last word, and the gain of a style."""
    text = (ROOT / name).read_text(encoding="utf-8")
    (right, of), (plain, _) = right_words("byte_boundary"), right_words("plain")
    assert f"completes {right} of {of} cut words, plain decoding {plain}" in text
    (loss,) = re.findall(
        r"^- cfg is better than plain on lambada .*: loss -(\S+) \[-(\S+), -(\S+)\]", REPORT, re.MULTILINE
    )
    assert "likelier, by {0} [{2}, {1}] nats each; worse on three other tasks".format(*loss) in text
    worse = set(re.findall(r"^- cfg is worse than plain on (\w+) ", REPORT, re.MULTILINE))
    assert len(worse) == 3, worse
    (gain,) = re.findall(r"under the style × (\S+ \[[^]]+\])", text)
    assert re.search(rf"^\| ngram_style weight=0.1 \| .* ×{re.escape(gain)} \|", REPORT, re.MULTILINE)


def test_the_figures_of_the_demo() -> None:
    """The first act names the same words."""
    (right, of), (plain, _) = right_words("byte_boundary"), right_words("plain")
    assert f"the cut word of {plain} of {of} prompts, and byte_boundary of {right}" in ACTS[0].remark
