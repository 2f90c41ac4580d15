"""The tables of the pages on programs: settings, pass@1, paired comparisons with power, and programs to read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from logitkit.bench.report import Spread, holm, mcnemar
from studies.evidence import POWER
from studies.guided_answers import Records
from studies.guided_records import METHODS, SETTINGS, ByArm, answered, by_arm, changed, chosen_settings, points
from studies.intervals import bootstrap_interval, interval_text
from studies.tables import markdown_table

COMPARED = (("uscd", "plain"), ("mti", "plain"), ("adadec", "plain"), ("uscd", "mti"), ("uscd", "adadec"))
SMALLEST = 10  # points; the difference for which the table says how many problems would show it


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    chosen = chosen_settings(records)
    development = answered(records, "development", ["", *SETTINGS])
    judged = answered(records, "held-out" if development else None, ["", *chosen.values()])
    of_arm = by_arm(judged)
    arms = {"plain": of_arm[""]} | {method: of_arm[chosen[method]] for method in METHODS}
    tables = {}
    if development:
        tables["development"] = development_table(by_arm(development))
    if every := answered(records, "held-out", ["", *SETTINGS]):
        tables |= {"every": every_setting(by_arm(every)), "rounding": rounding_line(records)}
    return tables | {
        "judged": judged_table(arms, chosen, "held-out problems" if development else "problems"),
        "comparisons": comparisons(arms, chosen, COMPARED),
        "changes": changes_table(arms, chosen),
        "placeholders": placeholders_table(arms, chosen),
        "programs": programs(arms, chosen),
    }


def development_table(arms: ByArm) -> str:
    """Return how many development problems each setting passes."""
    rows = []
    for setting in ("", *SETTINGS):
        own = arms[setting]
        solved, others = sum(record["passed"] for record in own), changed(own, arms[""])
        guided = f"{_guided(own):.3f}"
        rows.append([f"`{setting}`" if setting else "plain", f"{solved} of {len(own)}", f"{others}", guided])
    return markdown_table(["setting", "development problems passed", "answers changed", "guided steps"], rows)


def every_setting(arms: ByArm) -> str:
    """Return how every setting differs from plain decoding on held-out problems, with a correction over all settings.

    This explores: one of the two settings of each method was chosen before.
    """
    plain = points(arms[""])
    differences = {setting: points(arms[setting]) - plain for setting in SETTINGS}
    flips = [_gained_and_lost(one) for one in differences.values()]
    ps = holm([mcnemar(gained, lost) for gained, lost in flips])
    rows = []
    for (setting, one), (gained, lost), p in zip(differences.items(), flips, ps, strict=True):
        mean = interval_text(bootstrap_interval(one), "+.1f")
        rows.append([f"`{setting}`", mean, f"{p:.3f}", str(gained), str(lost), str(_cut_off(arms[setting]))])
    headings = ["setting", "minus plain, points, 95 %", "p (Holm, all settings)", "gained", "lost", "cut off"]
    return markdown_table(headings, rows)


def rounding_line(records: Records) -> str:
    """Return how many answers at whose steps a method never acted differ from those of plain decoding."""
    plain = {record["item"]: record for record in records if record["arm"] == ""}
    idle = [one for one in records if one["arm"] in SETTINGS and one["guided"] == 0]
    texts = sum(one["text"] != plain[one["item"]]["text"] for one in idle)
    verdicts = sum(one["passed"] != plain[one["item"]]["passed"] for one in idle)
    return (
        f"Answers in which a method never acted: {len(idle)}. Their text differs from the plain one, by rounding alone:"
        f" {texts}. Their verdict differs: {verdicts}."
    )


def _gained_and_lost(differences: NDArray[np.float64]) -> tuple[int, int]:
    """Return on how many problems the first of two methods alone passes, and on how many the second alone."""
    return int((differences > 0).sum()), int((differences < 0).sum())


def _cut_off(own: Records) -> int:
    """Return how many answers of an arm reach the limit of tokens."""
    return sum(record["tokens"] >= record["settings"]["max_new_tokens"] for record in own)


def _guided(own: Records) -> float:
    """Return the share of the steps of all answers at which a method acted."""
    steps = [record["tokens"] for record in own]
    return float(np.average([record["guided"] for record in own], weights=steps))


def judged_table(arms: ByArm, chosen: dict[str, str], items: str) -> str:
    """Return pass@1, guided steps and lengths of every arm on the problems that are judged.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
        items: what the problems are.
    """
    rows = []
    for method, own in arms.items():
        share = interval_text(bootstrap_interval(points(own)), ".1f")
        lengths = [f"{np.mean([record['tokens'] for record in own]):.0f}", f"{_cut_off(own)}"]
        name = f"`{chosen[method]}`" if method in chosen else method
        rows.append([name, share, f"{_guided(own):.3f}", *lengths])
    headings = [f"{len(arms['plain'])} {items}", "pass@1, %", "guided steps", "tokens an answer", "cut off"]
    return markdown_table(headings, rows)


def comparisons(arms: ByArm, chosen: dict[str, str], compared: Sequence[tuple[str, str]]) -> str:
    """Return the paired differences with intervals, corrected exact McNemar tests, and their power.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
        compared: names of arms; the second one is subtracted. The p-values are corrected for all pairs.
    """
    differences = [points(arms[first]) - points(arms[second]) for first, second in compared]
    flips = [_gained_and_lost(one) for one in differences]
    ps = holm([mcnemar(gained, lost) for gained, lost in flips])
    rows = []
    for (first, second), one, (gained, lost), p in zip(compared, differences, flips, ps, strict=True):
        share = (gained + lost) / len(one)
        spread = Spread(discordant=share) if share else None
        seen = spread.smallest_difference(len(one), power=POWER, comparisons=len(compared)) if spread else None
        needed = None
        if spread and 100 * share >= SMALLEST:
            needed = spread.items_needed(SMALLEST / 100, power=POWER, comparisons=len(compared))
        rows.append(
            [
                f"{chosen.get(first, first)} - {chosen.get(second, second)}",
                "points passed",
                str(len(one)),
                interval_text(bootstrap_interval(one), "+.1f"),
                f"{p:.3f}",
                f"{100 * seen:.1f}" if seen else "none",
                str(needed or "impossible"),
            ]
        )
    headings = ["difference", "unit", "items", "mean, 95 %", "p (Holm)", f"seen with {100 * POWER:.0f} % power"]
    return markdown_table([*headings, f"problems for {SMALLEST} points"], rows)


def changes_table(arms: ByArm, chosen: dict[str, str]) -> str:
    """Return how many answers and verdicts each method changed against plain decoding.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
    """
    plain, rows = arms["plain"], []
    for method, setting in chosen.items():
        difference = points(arms[method]) - points(plain)
        flips = [str(count) for count in _gained_and_lost(difference)]
        rows.append([f"`{setting}`", f"{changed(arms[method], plain)} of {len(plain)}", *flips])
    return markdown_table(["setting", "answers changed", "passes, plain does not", "plain passes, it does not"], rows)


def is_placeholder(text: str) -> bool:
    r"""Return whether an answer has no statement but the head of a function, ``pass``, ``...`` or an empty ``return``.

    Examples:
        >>> is_placeholder("def f():\n    # Your code here\n    pass\n"), is_placeholder("    return 1\n")
        (True, False)
    """
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {line for line in lines if line and not line.startswith("def ")} <= {"pass", "...", "return", "return None"}


def placeholders_table(arms: ByArm, chosen: dict[str, str]) -> str:
    """Return how often each method writes a placeholder, and how it does where plain decoding and it write a program.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
    """
    plain, rows = arms["plain"], []
    empty = [is_placeholder(record["text"]) for record in plain]
    for method, setting in chosen.items():
        own = [is_placeholder(record["text"]) for record in arms[method]]
        both = [number for number, pair in enumerate(zip(empty, own, strict=True)) if not any(pair)]
        difference = (points(arms[method]) - points(plain))[both]
        flips = [str(count) for count in _gained_and_lost(difference)]
        interval = interval_text(bootstrap_interval(difference), "+.1f")
        rows.append([f"`{setting}`", str(sum(own)), str(sum(empty)), str(len(both)), *flips, interval])
    headings = ["setting", "placeholders", "of plain decoding", "programs by both"]
    flips = ["passes, plain does not", "plain passes, it does not", "difference, points"]
    return markdown_table([*headings, *flips], rows)


def programs(arms: ByArm, chosen: dict[str, str], most: int = 3) -> str:
    """Return some held-out programs whose verdict a method changed, of different methods first.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
        most: largest number of programs.
    """
    found = []
    for method, setting in chosen.items():
        flipped = [
            (one, other)
            for one, other in zip(arms[method], arms["plain"], strict=True)
            if one["passed"] != other["passed"]
        ]
        for rank, (one, other) in enumerate(sorted(flipped, key=lambda pair: int(pair[0]["tokens"]))):
            verdict = "passes, plain does not" if one["passed"] else "does not pass, plain does"
            head = f"{one['item']}, `{setting}` ({verdict}). Plain decoding, then the method:"
            found.append((rank, f"{head}\n\n{_block(other['text'])}\n\n{_block(one['text'])}"))
    found.sort(key=lambda pair: pair[0])
    return "\n\n".join(text for _, text in found[:most]) or "No method changed a verdict."


def _block(text: str) -> str:
    """Return a program as a block of Markdown."""
    lines = [line.rstrip() for line in text.strip("\n").rstrip().split("\n")]
    return "\n".join(["```text", *lines, "```"])
