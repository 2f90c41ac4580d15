"""The table of the pages of evidence: size, time by the speeds of the models, state, and the size that would be needed.

python -m studies.evidence_plan docs/evidence.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from studies import command
from studies.evidence import write_results
from studies.tables import markdown_table

SPEED = {"SmolLM2-135M": 100.0, "Gemma 3 270M": 50.0, "Qwen2.5-Coder-1.5B": 4.5, "TinyLlama 1.1B": 5.4}  # tokens/s


@dataclass(frozen=True, kw_only=True)
class PlannedPage:
    """One page of evidence.

    Attributes:
        letter, title: its place in the order of work, and its subject.
        items: the items of a full run.
        tokens: tokens that the slowest model writes or reads in a full run; reading is counted like writing.
        model: the slowest model of the run, which sets the time.
        device: where a full run fits.
        state: what was done.
        needed: what would show a difference, where this run cannot.
    """

    letter: str
    title: str
    items: str
    tokens: int
    model: str
    device: str
    state: str
    needed: str

    @property
    def hours(self) -> float:
        """Hours of the full run on a CPU of two cores."""
        return self.tokens / SPEED[self.model] / 3600


PAGES = (
    PlannedPage(
        letter="a",
        title="corrections of [Choosing a strategy](choosing.md)",
        items="all sentences",
        tokens=0,
        model="SmolLM2-135M",
        device="none",
        state="done",
        needed="",
    ),
    PlannedPage(
        letter="b",
        title="`byte_boundary` on partial tokens: [words and programs](measurements/partial_words.md), "
        "[languages without spaces](measurements/unspaced_words.md)",
        items="243 cuts of English and programs, 263 of three languages",
        tokens=506 * 5 * 70,
        model="Gemma 3 270M",
        device="CPU",
        state="measured; a language of long compounds is not",
        needed="see the pages",
    ),
    PlannedPage(
        letter="c",
        title="[CoRE, GaC and UniTE against means](measurements/ensemble_pairs.md)",
        items="120 spans of books, 120 of programs",
        tokens=240 * 6 * 90,
        model="Gemma 3 270M",
        device="CPU",
        state="240 spans, over tokens and bytes, and the items of the example report; no texts of byte ensembles",
        needed="see the page",
    ),
    PlannedPage(
        letter="d",
        title="[n-gram style against prompting](measurements/style_prompting.md)",
        items="2 models, 2 books, 60 prompts, 10 settings",
        tokens=2 * 2 * (20 * 10 + 40 * 4) * 60,
        model="Gemma 3 270M",
        device="CPU",
        state="measured",
        needed="see the page",
    ),
    PlannedPage(
        letter="e",
        title="[referee of samplers](measurements/sampler_referee.md)",
        items="300 passages of one model, 240 of another, 12 samplers, 3 levels of diversity, 3 temperatures",
        tokens=(300 + 240) * 70,
        model="Gemma 3 270M",
        device="CPU",
        state="the last word of a passage is measured with two models, exactly; long and creative texts are not",
        needed="see the page; for texts, people who judge them",
    ),
    PlannedPage(
        letter="f",
        title="[CAD, AdaCAD and COIECD](measurements/context_answers.md)",
        items="300 questions, 2 contexts",
        tokens=300 * 4 * 50,
        model="SmolLM2-135M",
        device="CPU",
        state="measured",
        needed="see the page",
    ),
    PlannedPage(
        letter="g",
        title="[cascades and R2R, generated answers](measurements/cascade_answers.md)",
        items="360 stories, 5 rules at 3 shares",
        tokens=360 * 60,
        model="TinyLlama 1.1B",
        device="CPU",
        state="measured on short answers with one pair; the speculative form beside assisted decoding has "
        "[a page](measurements/checked_drafts.md)",
        needed="see the page",
    ),
    PlannedPage(
        letter="h",
        title="[sparse but critical tokens of a model before and after tuning](measurements/critical_tokens.md)",
        items="48 passages, 10 arms",
        tokens=48 * 10 * 20,
        model="SmolLM2-135M",
        device="CPU",
        state=(
            "measured with a model tuned on examples, not by reinforcement learning, and on short answers; "
            "[a pair trained on sums](measurements/small_pair.md) is measured too"
        ),
        needed="see the page",
    ),
    PlannedPage(
        letter="i",
        title=(
            "[contrastive decoding with its amateur](measurements/contrastive_amateur.md), "
            "[DExperts as proxy tuning](measurements/proxy_tuning.md)"
        ),
        items="150 last words, 40 passages of a book and four prompts",
        tokens=150 * 100 + 40 * 4 * 160,
        model="TinyLlama 1.1B",
        device="CPU",
        state="measured with one pair; no written texts, and no amateur or small pair of the same family is at hand",
        needed="see the page",
    ),
    PlannedPage(
        letter="j",
        title="[USCD, MTI and AdaDec on programs](measurements/guided_code.md), "
        "[AdaDec on HumanEval](measurements/adadec_humaneval.md)",
        items="427 problems under 7 settings, 164 under 2, about 70 tokens",
        tokens=427 * 7 * 72 + 164 * 2 * 57,
        model="Qwen2.5-Coder-1.5B",
        device="GPU",
        state="all problems of MBPP are measured, and AdaDec alone on all of HumanEval, on a CPU",
        needed="see the pages",
    ),
    PlannedPage(
        letter="k",
        title="power sampling of [problems](measurements/power_problems.md) and of [last words]"
        "(measurements/power_sampling.md), [`goose`](measurements/draft_trees.md)",
        items="168 problems, 49 texts, 75 tokens",
        tokens=168 * 49 * 75,
        model="Qwen2.5-Coder-1.5B",
        device="GPU",
        state="168 problems and 20 passages are measured",
        needed="see the page",
    ),
)


def table() -> str:
    """Return the table of all pages."""
    rows = []
    for page in PAGES:
        size = (page.items, f"{page.tokens:,}", page.model, f"{page.hours:.1f}", page.device)
        rows.append([page.letter, page.title, *size, page.state, page.needed])
    headings = ["", "page", "items", "tokens", "slowest model", "hours on a CPU", "runs on", "state", "needed"]
    return markdown_table(headings, rows)


def main(page: Annotated[Path, typer.Argument(help="Page whose table is replaced.")]) -> None:
    """Write the table into the page."""
    write_results(page, {"pages": table()})


if __name__ == "__main__":
    command.run(main)
