"""Tables and plots of `studies.cascade_curves`: each method next to its control."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logitkit.processors.cascade import PostHocRule, PostHocRuleConfig, deferral_curve, switches_within_budget
from studies.cascade_sequences import area_table, deferral_area, sequence_scores
from studies.intervals import bootstrap_interval, interval_text
from studies.plots import new_figure
from studies.tables import markdown_table

Numbers = NDArray[np.float64]
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def write(rows: Sequence[dict[str, Any]], alphas: Sequence[float], out: Path, name: str, *, left_out: int) -> str:
    """Write ``NAME.md``, ``NAME.json`` and, if matplotlib is installed, ``NAME.png``; return the Markdown.

    Args:
        rows: the measurements of the passages.
        alphas: the alphas of the sweep.
        out: folder of the files.
        name: name of the files.
        left_out: number of passages that were left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = {"tokens": token_rules(rows, alphas), "sequences": sequence_rules(rows), "crossover": crossover(rows)}
    total = sum(row["tokens"] for row in rows)
    text = f"{len(rows)} passages, {total} tokens; {left_out} left out (too long, or no token for the word).\n\n"
    tables = (
        _token_table(results["tokens"]),
        _sequence_table(results["sequences"]),
        _crossover_table(results["crossover"]),
    )
    text += "\n\n".join(tables)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, out / f"{name}.png")
    return text


def token_rules(rows: Sequence[dict[str, Any]], alphas: Sequence[float]) -> dict[str, Any]:
    """Return deferral rate, bits per token and last words of each rule and alpha, with gains over random deferral."""
    counts = np.array([row["tokens"] for row in rows], dtype=float)
    ends = {side: np.array([sum(row["positions"][f"{side}_bits"]) for row in rows]) for side in ("small", "large")}
    results: dict[str, Any] = {"small": float(ends["small"].sum() / counts.sum())}
    results |= {"large": float(ends["large"].sum() / counts.sum()), "rules": {}}
    for rule in rows[0]["rules"]:
        lines = []
        for place, alpha in enumerate(alphas):
            measured = np.array([row["rules"][rule][place] for row in rows], dtype=float)
            bits, rates, written = measured.T
            rate = float((rates * counts).sum() / counts.sum())
            # Random deferral at the same rate is a straight line between the two models.
            gain = ends["small"] + rate * (ends["large"] - ends["small"]) - bits
            chance = _random_words(rows, rate)
            lines.append(
                {
                    "alpha": alpha,
                    "rate": rate,
                    "bits": float(bits.sum() / counts.sum()),
                    "bits_gained": bootstrap_interval(gain, counts),
                    "words": float(written.mean()),
                    "words_gained": bootstrap_interval(written - chance),
                }
            )
        results["rules"][rule] = lines
    return results


def _random_words(rows: Sequence[dict[str, Any]], rate: float) -> Numbers:
    """Return the probability that random deferral at a rate writes each last word, with independent tokens."""
    return np.array(
        [
            np.prod(
                [
                    (1 - rate) * small_hit + rate * large_hit
                    for small_hit, large_hit in zip(
                        row["positions"]["small_hit"][-row["last"] :],
                        row["positions"]["large_hit"][-row["last"] :],
                        strict=True,
                    )
                ]
            )
            for row in rows
        ]
    )


def sequence_rules(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the area under the deferral curve (AUC-DF) of every sequence rule on the second half of the passages.

    The learned rule is trained on the first half.
    """
    small, large = (
        np.array([all(row["positions"][f"{side}_hit"][-row["last"] :]) for row in rows], dtype=float)
        for side in ("small", "large")
    )
    logps = torch.tensor([row["logps"] for row in rows])
    mask = torch.ones_like(logps, dtype=torch.bool)
    half = len(rows) // 2
    scores, error = sequence_scores(logps, mask, (0.0, 0.2, 0.5, 0.8, 1.0)), ""
    try:
        quality = [torch.tensor(values[:half]).float() for values in (small, large)]
        config = PostHocRuleConfig(quantiles=6, layers=2, width=16, target="gain")
        scores["learned"] = PostHocRule.fit(logps[:half], mask[:half], *quality, config=config)(logps, mask)
    except ValueError as failure:
        scores["learned"] = torch.zeros(len(rows))
        error = str(failure)
    results: dict[str, Any] = {"items": len(rows) - half, "small": small[half:].mean(), "large": large[half:].mean()}
    results |= {"learned_error": error, "rules": {}}
    lengths = [row["tokens"] for row in rows[half:]]
    for name, score in scores.items():
        held_out = score[half:].numpy()
        rates, quality_at = deferral_curve(held_out, small[half:], large[half:])
        results["rules"][name] = deferral_area(held_out, small[half:], large[half:], lengths) | {
            "curve": [rates.round(4).tolist(), quality_at.round(4).tolist()],
        }
    return results


def crossover(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of swapped tokens and of recovered bits, for each measure and budget.

    ``online`` is what the processor does: the JS divergence above the threshold 0.1, under a running budget. The other
    measures are bounds with hindsight: in each passage the positions with the highest scores are swapped, as many as
    the budget allows. The recovered share is 0 for the small model and 1 for the large one.
    """
    generator = np.random.default_rng(0)
    results: dict[str, Any] = {measure: [] for measure in ("online", "js", "entropy", "random")}
    gap = np.array([sum(r["positions"]["small_bits"]) - sum(r["positions"]["large_bits"]) for r in rows])
    for measure in results:
        for budget in BUDGETS:
            gained, swapped = np.zeros(len(rows)), np.zeros(len(rows))
            for place, row in enumerate(rows):
                at = {key: np.array(value) for key, value in row["positions"].items()}
                score = generator.random(row["tokens"]) if measure == "random" else at.get(measure, at["js"])
                if measure == "online":
                    chosen = switches_within_budget(torch.tensor(at["js"])[None] > 0.1, budget)[0].numpy()
                else:
                    chosen = np.zeros(row["tokens"], bool)
                    chosen[np.argsort(-score)[: round(budget * row["tokens"])]] = True
                gained[place] = (at["small_bits"] - at["large_bits"])[chosen].sum()
                swapped[place] = chosen.sum()
            share = float(swapped.sum() / sum(row["tokens"] for row in rows))
            results[measure].append({"budget": budget, "share": share, "recovered": bootstrap_interval(gained, gap)})
    return results


def _token_table(results: dict[str, Any]) -> str:
    """Return the token rules as Markdown."""
    rows = [
        [
            rule,
            f"{line['alpha']:g}",
            f"{line['rate']:.3f}",
            f"{line['bits']:.3f}",
            interval_text(line["bits_gained"], "+.3f"),
            f"{line['words']:.3f}",
            interval_text(line["words_gained"], "+.3f"),
        ]
        for rule, lines in results["rules"].items()
        for line in lines
    ]
    headings = ["rule", "alpha", "deferral rate", "bits/token", "bits gained", "last words", "words gained"]
    about = f"Token rules. Bits per token: small {results['small']:.3f}, large {results['large']:.3f}. "
    about += "Gains are over random deferral at the same rate, with 95 % intervals."
    return f"{about}\n\n{markdown_table(headings, rows)}"


def _sequence_table(results: dict[str, Any]) -> str:
    """Return the sequence rules as Markdown."""
    about = f"Sequence rules, {results['items']} passages. Last words right: "
    about += f"small {results['small']:.3f}, large {results['large']:.3f}."
    about += f" The learned rule could not be trained: {results['learned_error']}." if results["learned_error"] else ""
    return f"{about}\n\n{area_table(results['rules'])}"


def _crossover_table(results: dict[str, Any]) -> str:
    """Return the recovered bits of crossover as Markdown."""
    rows = [
        [measure, f"{line['budget']:g}", f"{line['share']:.3f}", interval_text(line["recovered"], "+.3f")]
        for measure, lines in results.items()
        for line in lines
    ]
    about = (
        "Crossover: share of the bits between small and large model that is recovered. `online` is what the processor "
        "does; the other rows choose the positions of a whole passage with hindsight, which no processor can."
    )
    return f"{about}\n\n{markdown_table(['measure', 'budget', 'swapped', 'recovered'], rows)}"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw quality against cost for token rules, sequence rules and crossover; writes nothing without matplotlib."""
    figure = new_figure(13, 3.8)
    if figure is None:
        return
    left, middle, right = figure.subplots(1, 3)
    tokens = results["tokens"]
    for rule, rows in tokens["rules"].items():
        order = sorted(rows, key=lambda row: row["rate"])
        left.plot([row["rate"] for row in order], [row["bits"] for row in order], marker=".", label=rule)
    left.plot([0, 1], [tokens["small"], tokens["large"]], "k:", label="random")
    left.set(title="token rules", xlabel="share of tokens from the large model", ylabel="bits a token")
    for rule, row in results["sequences"]["rules"].items():
        middle.plot(*row["curve"], label=rule)
    middle.plot([0, 1], [results["sequences"]["small"], results["sequences"]["large"]], "k:", label="random")
    middle.set(title="sequence rules", xlabel="share of passages deferred", ylabel="last words right")
    for measure, rows in results["crossover"].items():
        right.plot([row["share"] for row in rows], [row["recovered"][0] for row in rows], marker=".", label=measure)
    right.set(title="crossover", xlabel="share of tokens swapped", ylabel="bits recovered")
    for axes in (left, middle, right):
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
